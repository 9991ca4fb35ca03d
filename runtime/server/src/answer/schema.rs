//! What the schema of a tool says of its parameters, for forms of calls that write values without quotation marks.

use serde_json::Value;

/// Most parts of a schema that are looked at. References may go in circles.
const MAX_PARTS: usize = 256;

/// Which kinds of JSON a parameter may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    string: bool,
    number: bool,
    boolean: bool,
    null: bool,
    array: bool,
    object: bool,
}

impl Kinds {
    /// Of the parameter `name` of a tool whose parameters are `schema`.
    pub fn of(schema: &Value, name: &str) -> Kinds {
        let (mut kinds, mut parts) = (Kinds::default(), MAX_PARTS);
        if let Some(parameter) = schema.get("properties").and_then(|all| all.get(name)) {
            kinds.add(schema, parameter, &mut parts);
        }
        kinds
    }

    /// Takes up to `parts` parts of a schema into account.
    fn add(&mut self, root: &Value, schema: &Value, parts: &mut usize) {
        if *parts == 0 {
            return;
        }
        *parts -= 1;
        let reference = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
        if let Some(target) = reference.and_then(|path| root.pointer(path)) {
            self.add(root, target, parts);
        }
        match schema.get("type") {
            Some(Value::String(name)) => self.named(name),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).for_each(|n| self.named(n)),
            _ => {
                let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
                values.chain(schema.get("const")).for_each(|value| self.like(value));
                for several in ["anyOf", "oneOf", "allOf"] {
                    let all = schema.get(several).and_then(Value::as_array).into_iter().flatten();
                    all.for_each(|schema| self.add(root, schema, parts));
                }
            }
        }
    }

    fn named(&mut self, name: &str) {
        match name {
            "string" => self.string = true,
            "number" | "integer" => self.number = true,
            "boolean" => self.boolean = true,
            "null" => self.null = true,
            "array" => self.array = true,
            "object" => self.object = true,
            _ => {}
        }
    }

    fn like(&mut self, value: &Value) {
        *match value {
            Value::String(_) => &mut self.string,
            Value::Number(_) => &mut self.number,
            Value::Bool(_) => &mut self.boolean,
            Value::Null => &mut self.null,
            Value::Array(_) => &mut self.array,
            Value::Object(_) => &mut self.object,
        } = true;
    }

    /// Whether any value is a string, whatever it looks like.
    pub fn only_string(self) -> bool {
        self == Kinds { string: true, ..Kinds::default() }
    }

    fn allow(self, value: &Value) -> bool {
        let unknown = self == Kinds::default();
        match value {
            // A string with its quotation marks is one that was quoted by mistake, or a text about quotation.
            Value::String(_) => false,
            Value::Number(_) => unknown || self.number,
            Value::Bool(_) => unknown || self.boolean,
            Value::Null => unknown || self.null,
            Value::Array(_) => unknown || self.array,
            Value::Object(_) => unknown || self.object,
        }
    }

    /// The JSON of a value that was written without quotation marks: what it is valid as, otherwise a string.
    pub fn json(self, written: &str) -> String {
        let text = written.trim();
        // Templates write earlier calls as Python does.
        let text = match text {
            "True" if self.boolean => "true",
            "False" if self.boolean => "false",
            "None" if self.null => "null",
            text => text,
        };
        match serde_json::from_str::<Value>(text) {
            Ok(value) if self.allow(&value) => text.to_owned(),
            _ => Value::from(written).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_become_what_the_schema_allows() {
        let schema = json!({
            "type": "object",
            "properties": {
                "text": {"type": "string"}, "count": {"type": "integer"}, "flag": {"type": "boolean"},
                "list": {"type": "array", "items": {"type": "string"}},
                "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "choice": {"enum": ["1", "2"]}, "place": {"$ref": "#/$defs/Place"}, "both": {"type": ["number", "string"]},
                "any": {}, "loop": {"$ref": "#/properties/loop"}
            },
            "$defs": {"Place": {"type": "object"}}
        });
        for (name, written, expected) in [
            ("text", "5", "\"5\""),
            ("text", "a\n\"b\"", r#""a\n\"b\"""#),
            ("count", " 5\n", "5"),
            ("count", "five", "\"five\""),
            ("flag", "True", "true"),
            ("flag", "false", "false"),
            ("flag", "None", "\"None\""),
            ("list", r#"["a", "b"]"#, r#"["a", "b"]"#),
            ("list", r#"["a", "#, r#""[\"a\", ""#),
            ("maybe", "null", "null"),
            ("maybe", "5", "\"5\""),
            ("choice", "1", "\"1\""),
            ("place", r#"{"lat": 1}"#, r#"{"lat": 1}"#),
            ("both", "2.5", "2.5"),
            ("any", "[1]", "[1]"),
            ("any", "True", "\"True\""),
            ("unknown", "7", "7"),
            ("loop", "x", "\"x\""),
        ] {
            assert_eq!(Kinds::of(&schema, name).json(written), expected, "{name}: {written}");
        }
        assert!(Kinds::of(&schema, "text").only_string() && Kinds::of(&schema, "choice").only_string());
        assert!(!Kinds::of(&schema, "maybe").only_string() && !Kinds::of(&schema, "any").only_string());
    }
}
