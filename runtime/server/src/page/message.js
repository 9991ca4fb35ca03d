// A message on the page: its text, its thoughts, and what can be done with it. And what is read aloud of an answer.

// Makes an element. `made` holds its properties; children are nodes or texts.
function make(tag, made, ...children) {
  const node = Object.assign(document.createElement(tag), made);
  node.append(...children);
  return node;
}

const isNear = (value) => value !== null && value !== undefined;

function seconds(time) {
  return time < 9.95 ? `${time.toFixed(time < 0.995 ? 2 : 1)} s` : `${Math.round(time)} s`;
}

// What an answer took, in words.
function statsOf(stats) {
  if (!stats) return "";
  const parts = [];
  if (isNear(stats.tokens)) parts.push(`${stats.tokens} tokens`);
  if (isNear(stats.rate)) parts.push(`${stats.rate < 10 ? stats.rate.toFixed(1) : Math.round(stats.rate)} tokens/s`);
  if (isNear(stats.first)) parts.push(`first token after ${seconds(stats.first)}`);
  return parts.join(" · ");
}

class MessageView {
  // `acts` are called with the message: edit(message, text), retry(message), goOn(message),
  // show(message, step).
  #acts;
  #parts = {};
  #markdown = null;
  #rendered = { text: 0, thinking: 0 };
  #due = 0;

  constructor(message, acts) {
    this.message = message;
    this.#acts = acts;
    const mine = message.role === "user";
    const parts = this.#parts;
    parts.body = make("div", { className: mine ? "body" : "answer" });
    parts.note = make("p", { className: "note", hidden: true });
    parts.copy = this.#button("Copy", () => this.#copy());
    parts.edit = this.#button("Edit", () => this.#edit());
    parts.retry = this.#button("Retry", () => acts.retry(this.message));
    parts.retry.hidden = mine;
    parts.more = this.#button("Continue", () => acts.goOn(this.message));
    parts.earlier = this.#button("‹", () => acts.show(this.message, -1), "Earlier version");
    parts.later = this.#button("›", () => acts.show(this.message, 1), "Later version");
    parts.place = make("span", {});
    parts.stats = make("span", {});
    parts.tools = make("div", { className: "tools" });
    parts.tools.append(parts.copy, parts.edit, parts.retry, parts.more, parts.earlier, parts.place, parts.later, parts.stats);
    parts.who = make("span", { className: "unseen" }, mine ? "You said:" : "The model said:");
    this.node = make("li", { className: `message ${message.role}` }, parts.who, parts.body, parts.note, parts.tools);
    if (mine) parts.body.textContent = message.text;
    else this.#markdown = new Markdown(parts.body);
  }

  #button(text, act, label) {
    const button = make("button", { type: "button", className: "quiet", textContent: text, onclick: act });
    if (label) button.setAttribute("aria-label", label);
    return button;
  }

  // Shows what has come, with the next picture of the screen.
  schedule(shown) {
    this.#due ||= requestAnimationFrame(() => {
      this.#due = 0;
      this.#grow();
      shown();
    });
  }

  // Shows all of the message. `running`: more of it comes. `versions`: how many there are, and which this is.
  // `last`: no message follows it.
  update(running, versions, last) {
    cancelAnimationFrame(this.#due);
    this.#due = 0;
    const { message } = this;
    const parts = this.#parts;
    if (this.#markdown) this.#grow();
    if (!running && this.#markdown) {
      this.#markdown.finish();
      this.#markdown = null;
    }
    parts.body.classList.toggle("waiting", running && message.text === "");
    if (parts.thought) parts.summary.textContent = this.#thoughtFor(running);
    parts.note.hidden = running || !message.note;
    parts.note.textContent = message.note;
    parts.note.classList.toggle("failed", message.failed === true);
    if (message.failed && !running) {
      parts.note.append(" ", this.#button("Try again", () => this.#acts.retry(message)));
    }
    parts.tools.hidden = running;
    // An answer that was not done, or was changed. Thoughts are not told to the model again, so that it could not go on after them.
    parts.more.hidden = !last || message.role === "user" || !message.note || message.text === "" || message.thinking !== "";
    const [count, index] = versions;
    parts.earlier.hidden = parts.later.hidden = parts.place.hidden = count < 2;
    parts.earlier.disabled = index === 0;
    parts.later.disabled = index === count - 1;
    parts.place.textContent = `${index + 1} of ${count}`;
    parts.stats.textContent = statsOf(message.stats);
  }

  // Whether what can be done with the message may be done now.
  allow(allowed) {
    for (const name of ["edit", "retry", "more", "earlier", "later"]) this.#parts[name].inert = !allowed;
    this.#parts.tools.classList.toggle("resting", !allowed);
  }

  // Moves the focus to where the next version in this direction is, or back from the last one.
  focusVersions(step) {
    const { earlier, later } = this.#parts;
    const [wanted, other] = step < 0 ? [earlier, later] : [later, earlier];
    (wanted.disabled ? other : wanted).focus();
  }

  #grow() {
    const { message } = this;
    const rendered = this.#rendered;
    if (message.thinking.length > rendered.thinking) {
      this.#thoughts().append(message.thinking.slice(rendered.thinking));
      rendered.thinking = message.thinking.length;
    }
    if (message.text.length > rendered.text) {
      this.#parts.body.classList.remove("waiting");
      this.#markdown?.write(message.text.slice(rendered.text));
      rendered.text = message.text.length;
    }
    if (this.#parts.thought) this.#parts.summary.textContent = this.#thoughtFor(message.text === "");
  }

  // Where thoughts are shown: folded, and there only where there are some.
  #thoughts() {
    const parts = this.#parts;
    if (!parts.thought) {
      parts.summary = make("summary", {});
      parts.thought = make("div", { className: "thought" });
      parts.body.before(make("details", {}, parts.summary, parts.thought));
    }
    return parts.thought;
  }

  #thoughtFor(thinking) {
    const time = this.message.stats?.thought;
    return thinking ? "Thinking" : isNear(time) ? `Thought for ${seconds(time)}` : "Thoughts";
  }

  async #copy() {
    await copyText(this.message.text, this.#parts.copy);
  }

  #edit() {
    const parts = this.#parts;
    const mine = this.message.role === "user";
    const area = make("textarea", { value: this.message.text, rows: Math.min(12, this.message.text.split("\n").length + 1) });
    area.setAttribute("aria-label", mine ? "Edited message" : "Edited answer");
    const save = make("button", { type: "submit", className: "strong", textContent: mine ? "Send" : "Save" });
    const cancel = this.#button("Cancel", () => close());
    const form = make("form", { className: "editor" }, area, make("div", { className: "bar" }, save, cancel));
    const close = () => {
      form.remove();
      parts.body.hidden = parts.tools.hidden = false;
      parts.edit.focus();
    };
    form.onsubmit = (event) => {
      event.preventDefault();
      const text = area.value.trim();
      if (text === "") return;
      close();
      this.#acts.edit(this.message, text);
    };
    form.onkeydown = (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        close();
      } else if (sends(event) && event.target === area) {
        event.preventDefault();
        form.requestSubmit();
      }
    };
    parts.body.hidden = parts.tools.hidden = true;
    parts.body.before(form);
    area.focus();
  }
}

// Whether a key sends what was written. While a word is still composed, Enter belongs to the composing.
function sends(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;
}

// Copies a text, and says so on the button.
async function copyText(text, button) {
  const before = button.textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copyOldWay(text);
    button.focus();
  }
  button.textContent = done ? "Copied" : "Not allowed";
  setTimeout(() => (button.textContent = before), 1500);
}

// Pages that come over a network without encryption have no clipboard but this one.
function copyOldWay(text) {
  const area = make("textarea", { value: text, className: "unseen" });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

// Reads an answer aloud sentence by sentence: a token is no word, and reading each would be noise.
class Announcer {
  #place;
  #open = "";

  constructor(place) {
    this.#place = place;
  }

  // Forgets what was said, for a new answer.
  begin() {
    this.#open = "";
    this.#place.replaceChildren();
  }

  add(text) {
    this.#open += text;
    // Looks for an end only near the new text, so that a long sentence is not searched again and again.
    const from = Math.max(0, this.#open.length - text.length - 4);
    let end = -1;
    for (const found of this.#open.slice(from).matchAll(/[.!?…。！？:]["'”’)»*]{0,2}\s|\n/g)) end = from + found.index + found[0].length;
    if (end < 0) return;
    this.say(this.#open.slice(0, end));
    this.#open = this.#open.slice(end);
  }

  // Says what is left, and how it ended.
  end(how) {
    this.say(this.#open);
    this.#open = "";
    this.say(how);
  }

  say(text) {
    const words = text.replace(/[`*_#|~]+/g, "").trim();
    if (words === "") return;
    this.#place.append(make("p", { textContent: words }));
    while (this.#place.childElementCount > 20) this.#place.firstChild.remove();
  }
}
