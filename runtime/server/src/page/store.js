// Keeps conversations in the browser, each in a record of its own, and says what a conversation is.
//
// A conversation is a tree of messages: an edited message and a further answer stand beside the earlier ones, which are kept.
// `shown` says which of the messages after a message is on the page. Where a model has no chat template a conversation is one
// text, which the model continues.

const nobody = "start";

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function newConversation(mode, system) {
  const now = Date.now();
  return { id: newId(), title: "", mode, system, created: now, updated: now, messages: [], shown: {}, text: "", mark: null };
}

// Adds a message after `parent` and shows it.
function addMessage(conversation, parent, role, text) {
  const message = { id: newId(), parent, role, text, thinking: "", note: "", failed: false, stats: null };
  conversation.messages.push(message);
  conversation.shown[parent] = message.id;
  return message;
}

// The messages on the page, from the first one on.
function shownMessages(conversation) {
  const known = new Map(conversation.messages.map((message) => [message.id, message]));
  const path = [];
  let id = conversation.shown[nobody];
  // Each message is shown once, whatever an imported file says.
  while (known.has(id)) {
    path.push(known.get(id));
    known.delete(id);
    id = conversation.shown[path.at(-1).id];
  }
  return path;
}

// The messages that stand in the same place.
function versionsOf(conversation, message) {
  return conversation.messages.filter((other) => other.parent === message.parent && other.role === message.role);
}

function titleOf(conversation) {
  if (conversation.title) return conversation.title;
  const text = conversation.mode === "text" ? conversation.text : shownMessages(conversation)[0]?.text;
  const line = (text ?? "").trim().split("\n", 1)[0];
  const characters = Array.from(line.slice(0, 200));
  if (characters.length === 0) return "New conversation";
  return characters.length > 48 ? `${characters.slice(0, 47).join("").trimEnd()}…` : line;
}

// ---- the database

const conversationsPlace = "conversations";

class Store {
  // Null where the browser keeps nothing; conversations then live as long as the page.
  #database = null;

  // Opens the database; false where there is none to be had.
  async open() {
    try {
      const opening = indexedDB.open("trit-run", 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore(conversationsPlace, { keyPath: "id" });
      this.#database = await settled(opening);
      // Another tab may need to change the database.
      this.#database.onversionchange = () => this.#database.close();
      return true;
    } catch {
      return false;
    }
  }

  async all() {
    if (!this.#database) return [];
    return settled(this.#records("readonly").getAll());
  }

  async one(id) {
    if (!this.#database) return undefined;
    return settled(this.#records("readonly").get(id));
  }

  // Fails with an error for people where there is no room left.
  async save(conversation) {
    if (this.#database) await this.#write((records) => records.put(conversation));
  }

  async remove(id) {
    if (this.#database) await this.#write((records) => records.delete(id));
  }

  #records(mode) {
    return this.#database.transaction(conversationsPlace, mode).objectStore(conversationsPlace);
  }

  async #write(change) {
    try {
      const records = this.#records("readwrite");
      change(records);
      // A write may be refused as late as when it is finished.
      await new Promise((done, failed) => {
        records.transaction.oncomplete = done;
        records.transaction.onabort = () => failed(records.transaction.error);
      });
    } catch (error) {
      const full = error?.name === "QuotaExceededError";
      throw new Failure(
        full
          ? "The browser has no room left for conversations. Export them, then delete some: what is new is not saved."
          : "The browser could not save this conversation. Export it before you close the page.",
      );
    }
  }
}

function settled(asked) {
  return new Promise((done, failed) => {
    asked.onsuccess = () => done(asked.result);
    asked.onerror = () => failed(asked.error);
  });
}

// ---- files

const fileKind = "trit-run conversations";

function exported(conversations) {
  return JSON.stringify({ format: fileKind, version: 1, conversations }, null, 1);
}

// The conversations of an exported file. Everything in it is checked: it may come from anybody.
function imported(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Failure("This file is not JSON.");
  }
  if (file?.format !== fileKind || !Array.isArray(file.conversations)) {
    throw new Failure("This file holds no conversations that were exported here.");
  }
  if (file.version !== 1) throw new Failure("This file was exported by a later version of this page.");
  return file.conversations.map((found, index) => {
    try {
      return checked(found);
    } catch (error) {
      throw new Failure(`Conversation ${index + 1} of this file is damaged: ${error.message}.`);
    }
  });
}

function checked(found) {
  const text = (value, name) => {
    if (typeof value !== "string") throw new Error(`${name} is no text`);
    return value;
  };
  const mode = found?.mode === "text" ? "text" : "chat";
  const conversation = newConversation(mode, text(found?.system, "its system prompt"));
  conversation.title = text(found.title, "its title").slice(0, 200);
  conversation.text = text(found.text, "its text");
  for (const name of ["created", "updated"]) {
    if (Number.isFinite(found[name])) conversation[name] = found[name];
  }
  if (!Array.isArray(found.messages)) throw new Error("it has no messages");
  const ids = new Set([nobody]);
  for (const message of found.messages) {
    const [id, parent] = [text(message?.id, "an id"), text(message.parent, "a place")];
    if (ids.has(id) || !ids.has(parent)) throw new Error("its messages are out of order");
    if (id === "__proto__") throw new Error("it has an id that cannot be");
    if (!["user", "assistant"].includes(message.role)) throw new Error("it has a role that is not known");
    ids.add(id);
    conversation.messages.push({
      id, parent, role: message.role, stats: checkedStats(message.stats), text: text(message.text, "a message"),
      thinking: text(message.thinking ?? "", "a thought"), failed: message.failed === true, note: text(message.note ?? "", "a note").slice(0, 2000),
    });
    // The last one of those in a place is shown, unless the file says another one.
    conversation.shown[parent] = id;
  }
  for (const message of conversation.messages) {
    if (found.shown?.[message.parent] === message.id) conversation.shown[message.parent] = message.id;
  }
  return conversation;
}

function checkedStats(stats) {
  if (stats === null || typeof stats !== "object") return null;
  const names = ["tokens", "prompt", "first", "rate", "thought"];
  return Object.fromEntries(names.map((name) => [name, Number.isFinite(stats[name]) ? stats[name] : null]));
}
