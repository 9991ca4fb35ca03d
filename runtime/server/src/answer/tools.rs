//! The tools that a request offers, as far as reading calls of them needs them.

use super::schema::Kinds;
use serde_json::Value;
use std::sync::Arc;

/// Tools by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Tools(Arc<[Tool]>);

#[derive(Debug)]
struct Tool {
    name: String,
    parameters: Value,
}

impl Tools {
    /// Of tools in OpenAI's shape. Those without a name are passed over.
    pub fn new(tools: &[Value]) -> Tools {
        let tool = |tool: &Value| {
            let function = tool.get("function")?;
            let name = function.get("name")?.as_str()?.to_owned();
            Some(Tool { name, parameters: function.get("parameters").cloned().unwrap_or_default() })
        };
        Tools(tools.iter().filter_map(tool).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|tool| tool.name.as_str())
    }

    /// What a parameter of a tool may be.
    pub fn kinds(&self, tool: &str, parameter: &str) -> Kinds {
        let tool = self.0.iter().find(|known| known.name == tool);
        tool.map(|tool| Kinds::of(&tool.parameters, parameter)).unwrap_or_default()
    }
}
