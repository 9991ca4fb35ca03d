// Turns Markdown into DOM nodes while it arrives.
//
// Text from a model is hostile: it becomes the data of text nodes, never markup. The only elements are those made here, the only
// attributes with text from the model are a link's address, which is http or https, and its host.
//
// The work is linear in the length of the text. A line is final when its line break has come. The line that is still open is
// rendered on trial, and taken back when more of it comes. What is rendered again is never longer than two pieces: paragraphs and
// lines are cut into pieces of PIECE characters, at places that do not depend on how the text arrived, so that the nodes do not
// depend on it either. Emphasis and links do not reach from one piece into the next.

const PIECE = 2000;
// After PIECE characters a piece goes on to the next space, but not further than this.
const SLACK = 100;
// Lists and quotations inside each other.
const DEPTH = 12;
// Emphasis inside emphasis.
const SPANS = 8;

class Markdown {
  #root;
  // Text of the line that is still open and not yet final, and whether a part of that line is final already.
  #open = "";
  #held = "";
  #inLine = false;
  // Quotations and list items that are open, from the outside in, and the paragraph, table or code that is. The objects in
  // here are replaced and never changed, so that a copy of the array is enough to go back.
  #containers = [];
  #leaf = null;
  // How to take back what is on trial, while something is.
  #journal = null;
  #before = null;

  constructor(root) {
    this.#root = root;
  }

  // Adds text.
  write(text) {
    this.#takeBack();
    // A carriage return at the end waits for what may belong to it.
    const [, whole, held] = /^(.*?)(\r?)$/s.exec(this.#held + text);
    this.#held = held;
    this.#open += whole.replaceAll("\r\n", "\n").replaceAll("\r", "\n");
    let start = 0;
    for (;;) {
      const end = this.#open.indexOf("\n", start);
      const cut = cutOf(this.#open, start);
      if (end >= 0 && (cut < 0 || end <= cut)) {
        this.#segment(this.#open.slice(start, end), true);
        start = end + 1;
      } else if (cut >= 0) {
        this.#segment(this.#open.slice(start, cut), false);
        start = cut;
      } else {
        break;
      }
    }
    this.#open = this.#open.slice(start);
    // What is only the beginning of a mark shows when it is clear what it marks.
    if (!/^[\s#>*+\-=_~`|:]*$|^\s*\d{1,9}[.)]?\s*$/.test(this.#open)) this.#try();
  }

  // Renders what is left. Nothing may be added after it.
  finish() {
    this.#takeBack();
    if (this.#open !== "" || this.#inLine) this.#segment(this.#open, true);
    this.#open = "";
    this.#leaf = null;
  }

  #try() {
    this.#before = [this.#containers, this.#leaf, this.#inLine];
    this.#journal = [];
    this.#segment(this.#open, true);
  }

  #takeBack() {
    if (!this.#journal) return;
    for (const undo of this.#journal.reverse()) undo();
    this.#journal = null;
    [this.#containers, this.#leaf, this.#inLine] = this.#before;
  }

  // ---- the document changes through these

  #append(parent, node) {
    parent.append(node);
    this.#journal?.push(() => node.remove());
    return node;
  }

  #remove(node) {
    const parent = node.parentNode;
    node.remove();
    // Only the last child of its parent is ever removed.
    this.#journal?.push(() => parent.append(node));
  }

  #fill(node, text) {
    const old = [...node.childNodes];
    node.replaceChildren(inline(text));
    this.#journal?.push(() => node.replaceChildren(...old));
  }

  // Where blocks are added.
  get #here() {
    return this.#containers.at(-1)?.node ?? this.#root;
  }

  // ---- lines

  // A part of a line; all of it, mostly. `last`: the line ends after it.
  #segment(text, last) {
    if (this.#inLine) this.#goOn(text, last);
    else this.#line(text, last);
    this.#inLine = !last;
  }

  // A further part of a long line.
  #goOn(text, last) {
    if (this.#leaf?.kind === "code") {
      this.#append(this.#leaf.code, new Text(last ? text + "\n" : text));
    } else if (text !== "") {
      if (this.#leaf?.kind !== "text") this.#paragraph("");
      this.#piece(text);
    }
  }

  // A line, or its first part.
  #line(line, last) {
    let rest = line.replace(/^[ \t]+/, (space) => space.replaceAll("\t", "    "));
    const code = this.#leaf?.kind === "code";
    let matched = 0;
    for (const container of this.#containers) {
      const stripped = strip(container, rest, code);
      if (stripped === null) break;
      rest = stripped;
      matched += 1;
    }
    if (code && matched === this.#containers.length) {
      const { fence, indent } = this.#leaf;
      if (last && closes(rest, fence)) {
        this.#leaf = null;
      } else {
        const space = Math.min(indent, indentOf(rest));
        this.#append(this.#leaf.code, new Text(rest.slice(space) + (last ? "\n" : "")));
      }
      return;
    }
    if (rest.trim() === "") {
      this.#containers = this.#containers.slice(0, matched);
      this.#leaf = null;
      return;
    }
    // The list that a further item belongs to.
    let list = null;
    if (matched < this.#containers.length) {
      list = this.#containers[matched].list ?? null;
      if (this.#leaf?.kind === "text" && !starts(rest, list)) {
        // A paragraph goes on without the marks of what it stands in.
        this.#addLine(rest.trimStart());
        return;
      }
      this.#containers = this.#containers.slice(0, matched);
      this.#leaf = null;
    }
    while (this.#containers.length < DEPTH) {
      const quote = /^ *> ?/.exec(rest);
      if (quote) {
        this.#leaf = null;
        const node = this.#append(this.#here, document.createElement("blockquote"));
        this.#containers = [...this.#containers, { kind: "quote", node }];
        rest = rest.slice(quote[0].length);
      } else {
        const mark = isRule(rest) ? null : /^( *)([-*+]|(\d{1,9})[.)])( +|$)/.exec(rest);
        // A number at the beginning of a line of a paragraph is mostly a part of its text.
        if (!mark || (this.#leaf?.kind === "text" && mark[3] !== undefined && Number(mark[3]) !== 1)) break;
        this.#item(mark, list);
        rest = rest.slice(mark[0].length);
      }
      list = null;
    }
    if (rest.trim() !== "") this.#block(rest, last);
  }

  #item([whole, space, sign, number], list) {
    this.#leaf = null;
    const kind = number === undefined ? sign : sign.at(-1);
    if (list?.kind !== kind) {
      const node = document.createElement(number === undefined ? "ul" : "ol");
      if (number !== undefined && Number(number) !== 1) node.start = Number(number);
      list = { kind, node: this.#append(this.#here, node) };
    }
    const node = this.#append(list.node, document.createElement("li"));
    const mark = space.length + sign.length;
    const indent = whole.length - mark > 4 || whole.length === mark ? mark + 1 : whole.length;
    // Models indent by two what stands in a numbered item.
    const least = Math.min(indent, space.length + 2);
    this.#containers = [...this.#containers, { kind: "item", node, list, indent, least }];
  }

  // What stands in containers.
  #block(rest, last) {
    if (this.#leaf?.kind === "table" && rest.includes("|") && last) {
      this.#row(rest);
      return;
    }
    const fence = last ? /^( *)(`{3,}|~{3,})([^`]*)$/.exec(rest) : null;
    const heading = last ? /^ {0,3}(#{1,6})(?=\s|$)/.exec(rest) : null;
    if (fence) {
      this.#code(fence[2], fence[1].length, fence[3].trim());
    } else if (heading) {
      this.#leaf = null;
      // The page has headings of its own above these.
      const level = Math.min(heading[1].length + 2, 6);
      const node = this.#append(this.#here, document.createElement(`h${level}`));
      this.#fill(node, withoutClosing(rest.slice(heading[0].length).trim()));
    } else if (isRule(rest)) {
      this.#leaf = null;
      this.#append(this.#here, document.createElement("hr"));
    } else if (last && this.#leaf?.kind === "text" && this.#table(rest)) {
      return;
    } else if (this.#leaf?.kind === "text") {
      this.#addLine(rest.trimStart());
    } else {
      this.#paragraph(rest.trimStart());
    }
  }

  // ---- paragraphs

  #paragraph(text) {
    const node = this.#append(this.#here, document.createElement("p"));
    this.#fill(node, text);
    this.#leaf = { kind: "text", node, holder: node, text, line: text };
  }

  #addLine(line) {
    const { node, holder, text } = this.#leaf;
    const joined = `${text}\n${line}`;
    if (joined.length > PIECE) {
      this.#piece(`\n${line}`);
      this.#leaf = { ...this.#leaf, line };
    } else {
      this.#fill(holder, joined);
      this.#leaf = { kind: "text", node, holder, text: joined, line };
    }
  }

  #piece(text) {
    const holder = this.#append(this.#leaf.node, document.createElement("span"));
    this.#fill(holder, text);
    this.#leaf = { kind: "text", node: this.#leaf.node, holder, text, line: text };
  }

  // ---- tables

  // Makes the last line of the paragraph the head of a table, where `rest` is the line under a head.
  #table(rest) {
    if (!/^[\s|:-]+$/.test(rest) || !rest.includes("-")) return false;
    const { node, holder, text, line } = this.#leaf;
    const [head, under] = [cells(line), cells(rest)];
    if (!line.includes("|") || head.length !== under.length || !under.every((cell) => /^:?-+:?$/.test(cell))) return false;
    const left = text.slice(0, text.length - line.length).trimEnd();
    if (left !== "" || holder !== node) this.#fill(holder, left);
    else this.#remove(node);
    const align = under.map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : "start"));
    // Wide tables scroll by themselves, with the keyboard too.
    const frame = document.createElement("div");
    frame.className = "table";
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", "Table");
    const table = document.createElement("table");
    table.append(document.createElement("thead"), document.createElement("tbody"));
    table.firstChild.append(rowOf("th", head, align));
    frame.append(table);
    this.#append(this.#here, frame);
    this.#leaf = { kind: "table", body: table.lastChild, align };
    return true;
  }

  #row(rest) {
    this.#append(this.#leaf.body, rowOf("td", cells(rest), this.#leaf.align));
  }

  // ---- code

  #code(fence, indent, info) {
    const frame = document.createElement("div");
    frame.className = "code";
    const bar = document.createElement("div");
    const language = document.createElement("span");
    language.textContent = info.split(/\s/, 1)[0].slice(0, 40);
    const copy = document.createElement("button");
    copy.type = "button";
    copy.textContent = "Copy";
    copy.dataset.copy = "code";
    copy.setAttribute("aria-label", "Copy code");
    bar.append(language, copy);
    const pre = document.createElement("pre");
    pre.tabIndex = 0;
    const code = document.createElement("code");
    pre.append(code);
    frame.append(bar, pre);
    this.#append(this.#here, frame);
    this.#leaf = { kind: "code", code, fence, indent };
  }
}

// Where a long piece that begins at `start` ends; -1 where that cannot be said yet, or it is short.
function cutOf(text, start) {
  if (text.length - start <= PIECE) return -1;
  for (let at = start + PIECE; at < start + PIECE + SLACK; at += 1) {
    if (at >= text.length) return -1;
    if (text[at] === " " || text[at] === "\n") return at;
  }
  const at = start + PIECE + SLACK;
  if (at >= text.length) return -1;
  // Not between the halves of a character.
  return /[\udc00-\udfff]/.test(text[at]) ? at - 1 : at;
}

// A line without the mark of a container that it stands in; null where it does not.
function strip(container, line, code) {
  if (container.kind === "quote") {
    const mark = /^ *> ?/.exec(line);
    return mark && line.slice(mark[0].length);
  }
  const indent = indentOf(line);
  // Blank lines stand in every item, and code goes on to its end however it is indented.
  if (code || indent === line.length) return line.slice(Math.min(indent, container.indent));
  return indent >= container.least ? line.slice(Math.min(indent, container.indent)) : null;
}

function indentOf(line) {
  let indent = 0;
  while (line[indent] === " ") indent += 1;
  return indent;
}

// Whether a line ends code that began with `fence`.
function closes(line, fence) {
  const text = line.trim();
  return text.length >= fence.length && text === fence[0].repeat(text.length);
}

// Whether a line begins a block that ends a paragraph. `list`: the list whose item the paragraph stands in.
function starts(line, list) {
  if (list && /^ *\d{1,9}[.)] /.test(line)) return true;
  return /^ *(#{1,6}(\s|$)|```|~~~|>|[-*+] |1[.)] )/.test(line) || isRule(line);
}

// Whether a line is a rule across the page.
function isRule(line) {
  const signs = line.replaceAll(" ", "");
  return signs.length >= 3 && "-*_".includes(signs[0]) && signs === signs[0].repeat(signs.length);
}

// A heading without the signs that may close it.
function withoutClosing(text) {
  let end = text.length;
  while (end > 0 && text[end - 1] === "#") end -= 1;
  return end === 0 || text[end - 1] === " " ? text.slice(0, end).trimEnd() : text;
}

// The cells of a table's line.
function cells(line) {
  const found = [];
  let cell = "";
  for (let at = 0; at < line.length; at += 1) {
    if (line[at] === "\\" && line[at + 1] === "|") {
      cell += "|";
      at += 1;
    } else if (line[at] === "|") {
      found.push(cell.trim());
      cell = "";
    } else {
      cell += line[at];
    }
  }
  found.push(cell.trim());
  if (found[0] === "") found.shift();
  if (found.at(-1) === "") found.pop();
  return found;
}

function rowOf(tag, texts, align) {
  const row = document.createElement("tr");
  for (const [column, side] of align.entries()) {
    const cell = document.createElement(tag);
    if (tag === "th") cell.scope = "col";
    cell.style.textAlign = side;
    cell.append(inline(texts[column] ?? ""));
    row.append(cell);
  }
  return row;
}

// ---- inside of a line

// Emphasis, code and links of a text, as a fragment.
function inline(text) {
  // Elements that are open, from the outside in. One that finds no end becomes text.
  const spans = [{ node: document.createDocumentFragment(), sign: "" }];
  let plain = "";
  const flush = () => {
    if (plain !== "") spans.at(-1).node.append(plain);
    plain = "";
  };
  const add = (node) => {
    flush();
    spans.at(-1).node.append(node);
  };
  const dissolve = () => {
    flush();
    const { node, sign } = spans.pop();
    spans.at(-1).node.append(sign, ...node.childNodes);
  };
  // Lengths of runs of backticks that end nothing: from this place on there is no further run of that length.
  const lonely = new Set();
  let at = 0;
  while (at < text.length) {
    const char = text[at];
    if (char === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else if (char === "`") {
      const run = runOf(text, at);
      const end = lonely.has(run) ? -1 : endOfCode(text, at + run, run);
      if (end < 0) {
        lonely.add(run);
        plain += text.slice(at, at + run);
        at += run;
      } else {
        const code = document.createElement("code");
        const inside = text.slice(at + run, end).replaceAll("\n", " ");
        const padded = inside.startsWith(" ") && inside.endsWith(" ") && inside.trim() !== "";
        code.textContent = padded ? inside.slice(1, -1) : inside;
        add(code);
        at = end + run;
      }
    } else if (char === "[" || (char === "!" && text[at + 1] === "[")) {
      const found = linkAt(text, char === "!" ? at + 1 : at);
      if (found) {
        // Pictures are not loaded; they are links like others.
        add(linkOf(found.text, found.url));
        at = found.end;
      } else {
        plain += char;
        at += 1;
      }
    } else if ((char === "h" || char === "<") && (at === 0 || !isWord(text[at - 1]))) {
      const angle = char === "<" ? 1 : 0;
      const url = addressAt(text, at + angle);
      const end = url === null ? -1 : at + angle + url.length;
      if (url === null || (angle === 1 && text[end] !== ">")) {
        plain += char;
        at += 1;
      } else {
        add(linkOf(url, new URL(url)));
        at = end + angle;
      }
    } else if (char === "*" || char === "_" || char === "~") {
      const run = runOf(text, at);
      const [before, after] = [text[at - 1] ?? " ", text[at + run] ?? " "];
      let left = run > 3 || (char === "~" && run !== 2) ? 0 : run;
      const inWord = isWord(before) && isWord(after);
      // Signs between letters or digits are text, as in 2*3*4 and snake_case, but not **in**side of words.
      if (inWord && (char === "_" || (char === "*" && run === 1))) left = 0;
      if (left === 0) {
        plain += text.slice(at, at + run);
      } else {
        if (!isSpace(before)) {
          for (;;) {
            const index = spans.findLastIndex((span) => span.sign[0] === char && span.sign.length <= left);
            if (index < 1) break;
            while (spans.length - 1 > index) dissolve();
            flush();
            const { node, sign } = spans.pop();
            spans.at(-1).node.append(node);
            left -= sign.length;
          }
        }
        if (left > 0 && !isSpace(after)) {
          for (const size of left === 3 ? [1, 2] : [left]) {
            if (spans.length > SPANS) {
              plain += char.repeat(size);
              continue;
            }
            flush();
            const tag = char === "~" ? "del" : size === 2 ? "strong" : "em";
            spans.push({ node: document.createElement(tag), sign: char.repeat(size) });
          }
        } else {
          plain += char.repeat(left);
        }
      }
      at += run;
    } else {
      plain += char;
      at += 1;
    }
  }
  while (spans.length > 1) dissolve();
  flush();
  spans[0].node.normalize();
  return spans[0].node;
}

function runOf(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

// Where a run of exactly `run` backticks begins, from `at` on; -1 where there is none.
function endOfCode(text, at, run) {
  for (let next = text.indexOf("`", at); next >= 0; next = text.indexOf("`", next)) {
    const size = runOf(text, next);
    if (size === run) return next;
    next += size;
  }
  return -1;
}

const isWord = (char) => char !== undefined && /[\p{L}\p{N}]/u.test(char);
const isSpace = (char) => /\s/.test(char);

// An address whose scheme is http or https; null for any other.
function webAddress(text) {
  const url = URL.parse ? URL.parse(text) : tryAddress(text);
  return url && (url.protocol === "https:" || url.protocol === "http:") && url.host !== "" ? url : null;
}

function tryAddress(text) {
  try {
    return new URL(text);
  } catch {
    return null;
  }
}

// `[text](address)` at `at`, where the address is one that may be followed.
function linkAt(text, at) {
  let depth = 0;
  let close = at;
  for (; close < Math.min(text.length, at + 500); close += 1) {
    if (text[close] === "\\") close += 1;
    else if (text[close] === "[") depth += 1;
    else if (text[close] === "]" && (depth -= 1) === 0) break;
  }
  if (depth !== 0 || text[close] !== "]" || text[close + 1] !== "(") return null;
  let end = close + 2;
  depth = 0;
  for (; end < Math.min(text.length, close + 2000); end += 1) {
    if (text[end] === "(") depth += 1;
    else if (text[end] === ")" && (depth -= 1) < 0) break;
    else if (text[end] === "\n") return null;
  }
  if (text[end] !== ")") return null;
  // A title after the address is left out.
  const url = webAddress(text.slice(close + 2, end).trim().split(/\s/, 1)[0].replace(/^<|>$/g, ""));
  return url && { text: text.slice(at + 1, close), url, end: end + 1 };
}

// An address that stands in a text at `at`, without what rather belongs to the sentence.
function addressAt(text, at) {
  const rule = /https?:\/\/[^\s<>"`*\\^{}|]{1,2000}/y;
  rule.lastIndex = at;
  let found = rule.exec(text)?.[0].replace(/[.,;:!?'\]]{1,9}$/, "");
  while (found?.endsWith(")") && found.split(")").length > found.split("(").length) found = found.slice(0, -1);
  return found && webAddress(found) ? found : null;
}

function linkOf(text, url) {
  const link = document.createElement("a");
  link.href = url.href;
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  link.textContent = text === "" ? url.href : text;
  // Where a link leads is seen without following it, whatever its text claims.
  if (text !== url.href && text !== url.href.replace(/\/$/, "")) link.dataset.host = url.host;
  return link;
}
