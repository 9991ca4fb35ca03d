// The page: conversations at the side, one of them in the middle, and what is going on in it.

const at = (id) => document.getElementById(id);
const store = new Store();
const announcer = new Announcer(at("live"));
const conversations = new Map();
// Answers that are being written, by the id of their conversation.
const runs = new Map();
// Messages on the page, by their id.
const views = new Map();
// Other tabs hear which conversations have changed.
const tabs = "BroadcastChannel" in window ? new BroadcastChannel("trit-run") : null;
const settings = loadSettings();
let model = null;
let current = null;
// Whether the end of the conversation is on the screen, and stays there while it grows.
let following = true;

// ---- what is kept

function loadSettings() {
  const settings = { system: "", theme: "automatic", thinking: "", sampling: {} };
  try {
    const kept = JSON.parse(localStorage.getItem("trit-run.settings"));
    for (const name of ["system", "theme", "thinking"]) if (typeof kept?.[name] === "string") settings[name] = kept[name];
    for (const { name } of samplingFields) if (Number.isFinite(kept?.sampling?.[name])) settings.sampling[name] = kept.sampling[name];
  } catch {
    // Nothing is kept, or it is not readable: the page begins anew.
  }
  return settings;
}

function saveSettings() {
  try {
    localStorage.setItem("trit-run.settings", JSON.stringify(settings));
  } catch {
    notice("The browser could not save the settings. They hold until this page is closed.");
  }
}

// Saves are made one after the other, so that an older one never follows a newer one.
let saving = Promise.resolve();

function save(conversation) {
  saving = saving.then(async () => {
    if (!conversations.has(conversation.id)) return;
    try {
      await store.save(conversation);
      tabs?.postMessage(conversation.id);
    } catch (failure) {
      notice(failure.message);
    }
  });
  return saving;
}

function changed(conversation) {
  conversation.updated = Date.now();
  conversations.set(conversation.id, conversation);
  return save(conversation);
}

// ---- answers

// What the model is told, up to and with a message. Messages without text are left out, and those of the same role
// that then follow each other are joined, because many chat templates refuse them.
function told(conversation, last) {
  const known = new Map(conversation.messages.map((message) => [message.id, message]));
  const path = [];
  for (let message = last; message; message = known.get(message.parent)) path.unshift(message);
  const messages = conversation.system.trim() === "" ? [] : [{ role: "system", content: conversation.system }];
  for (const { role, text } of path) {
    if (text === "") continue;
    const before = messages.at(-1);
    if (before?.role === role) before.content += `\n\n${text}`;
    else messages.push({ role, content: text });
  }
  return messages;
}

// How tokens are chosen. Each further answer to the same message begins at the next seed, so that it is another one.
function chosen(version) {
  const sampling = { ...settings.sampling };
  if (sampling.seed !== undefined) sampling.seed += version;
  return sampling;
}

// Lets the model answer a message.
async function answerTo(conversation, message) {
  const version = conversation.messages.filter((other) => other.parent === message.id).length;
  const target = addMessage(conversation, message.id, "assistant", "");
  const body = { model: model?.id, messages: told(conversation, message), ...chosen(version) };
  if (model?.thinks && settings.thinking) body.chat_template_kwargs = { enable_thinking: settings.thinking === "on" };
  await run(conversation, target, "/v1/chat/completions", body, () => {
    views.get(target.id)?.schedule(follow);
  });
}

// Lets the model go on with an answer that was not done, or was changed.
async function continueAnswer(conversation, message) {
  // Its view is finished; a new one grows.
  views.get(message.id)?.node.remove();
  views.delete(message.id);
  const body = { model: model?.id, messages: told(conversation, message), continue_final_message: true, ...chosen(0) };
  await run(conversation, message, "/v1/chat/completions", body, () => {
    views.get(message.id)?.schedule(follow);
  });
}

// Lets the model continue a text.
async function continueText(conversation) {
  const version = conversation.mark?.tries ?? 0;
  const mark = { at: conversation.text.length, tries: version + 1, note: "", stats: null, failed: false };
  conversation.mark = mark;
  const body = { model: model?.id, prompt: conversation.text, ...chosen(version) };
  // This interface writes but few tokens where it is not told how many.
  body.max_tokens ??= 256;
  const target = { get text() { return conversation.text; }, set text(text) { conversation.text = text; }, thinking: "" };
  await run(conversation, target, "/v1/completions", body, () => drawText(conversation));
  Object.assign(mark, { note: target.note, stats: target.stats, failed: target.failed === true });
  changed(conversation);
  if (conversation === current) show();
}

// Adds to `target` what the server writes, and how it ended. `grown` is called when there is more of it.
async function run(conversation, target, path, body, grown) {
  const control = new AbortController();
  const state = { control, target };
  runs.set(conversation.id, state);
  target.failed = false;
  // Is shown where the page is opened again and the answer has not ended.
  target.note = "The page was closed before the answer was complete.";
  changed(conversation);
  show();
  announcer.begin();
  const began = performance.now();
  let first = null;
  let last = null;
  let usage = null;
  let finish = null;
  let saved = began;
  let thought = null;
  let key = null;
  let note = "";
  try {
    for await (const step of answer(path, body, control.signal)) {
      const now = performance.now();
      if (step.thinking || step.text) {
        first ??= now;
        last = now;
      }
      if (step.text && target.thinking && thought === null) {
        thought = (now - first) / 1000;
        target.stats = { thought };
      }
      target.thinking += step.thinking;
      target.text += step.text;
      usage = step.usage ?? usage;
      finish = step.finish ?? finish;
      if (conversation === current) {
        if (step.text) announcer.add(step.text);
        grown();
      }
      // What has come so far outlives the page.
      if (now - saved > 1000) {
        saved = now;
        save(conversation);
      }
    }
    if (finish === "length") note = "Ended at the limit of tokens.";
  } catch (failure) {
    if (failure.name === "AbortError") {
      note = "Stopped.";
    } else {
      note = failure instanceof Failure ? failure.message : `The page failed: ${failure.message}`;
      target.failed = true;
      if (failure.key) key = failure;
    }
  }
  target.note = note;
  const tokens = usage?.completion_tokens ?? null;
  target.stats = {
    tokens,
    prompt: usage?.prompt_tokens ?? null,
    first: first === null ? null : (first - began) / 1000,
    // The first token ends the wait for the prompt; the rate is that of those after it.
    rate: tokens > 1 && last > first ? ((tokens - 1) * 1000) / (last - first) : null,
    thought: thought ?? (target.thinking && last > first ? (last - first) / 1000 : null),
  };
  runs.delete(conversation.id);
  changed(conversation);
  if (conversation === current) {
    announcer.end(target.note);
    show();
  } else {
    showList();
  }
  if (key && (await askForKey(key.message))) resume(conversation, target);
}

function stop() {
  runs.get(current.id)?.control.abort();
}

// Does again what failed.
function resume(conversation, target) {
  if (runs.has(conversation.id)) return;
  if (conversation.mode === "text") {
    continueText(conversation);
    return;
  }
  const message = conversation.messages.find((other) => other.id === target.parent);
  // An answer of which nothing came is no version of its own.
  if (target.text === "" && target.thinking === "") {
    conversation.messages = conversation.messages.filter((other) => other !== target);
  }
  if (message) answerTo(conversation, message);
}

const acts = {
  retry(message) {
    resume(current, message);
    toWriting();
  },
  goOn(message) {
    if (runs.has(current.id)) return;
    continueAnswer(current, message);
    toWriting();
  },
  edit(message, text) {
    if (runs.has(current.id)) return;
    const edited = addMessage(current, message.parent, message.role, text);
    if (message.role === "user") {
      answerTo(current, edited);
      toWriting();
    } else {
      edited.note = "Edited.";
      changed(current);
      show();
      views.get(edited.id)?.node.querySelector(".tools button")?.focus();
    }
  },
  show(message, step) {
    const versions = versionsOf(current, message);
    const other = versions[versions.indexOf(message) + step];
    if (!other || runs.has(current.id)) return;
    current.shown[message.parent] = other.id;
    changed(current);
    show();
    views.get(other.id)?.focusVersions(step);
  },
};

// ---- what is on the page

function show() {
  const conversation = current;
  const running = runs.get(conversation.id);
  const text = conversation.mode === "text";
  const path = text ? [] : shownMessages(conversation);
  showList();
  at("title").textContent = titleOf(conversation);
  document.title = `${titleOf(conversation)} – trit-run`;
  at("empty").classList.toggle("small", text);
  at("empty").hidden = text ? conversation.text !== "" || Boolean(running) : path.length > 0;
  at("modes").hidden = model?.chat !== true;
  for (const input of document.querySelectorAll('input[name="mode"]')) input.checked = input.value === conversation.mode;
  at("page").hidden = !text;
  at("composer").hidden = text;
  for (const id of ["stop", "stop-text"]) at(id).hidden = !running;
  for (const id of ["send", "continue"]) at(id).hidden = Boolean(running);
  at("messages").hidden = path.length === 0;
  // Messages that stay keep their nodes, and with them what is selected, unfolded or in focus.
  const keep = new Set(path.map((message) => message.id));
  for (const [id, view] of views) {
    if (keep.has(id) && conversation.messages.includes(view.message)) continue;
    view.node.remove();
    views.delete(id);
  }
  for (const message of path) {
    if (!views.has(message.id)) {
      const view = new MessageView(message, acts);
      views.set(message.id, view);
    }
    const view = views.get(message.id);
    if (view.node !== at("messages").children[path.indexOf(message)]) at("messages").append(view.node);
    const versions = versionsOf(conversation, message);
    view.update(running?.target === message, [versions.length, versions.indexOf(message)], message === path.at(-1));
    view.allow(!running);
  }
  const stats = text ? conversation.mark?.stats : path.findLast((message) => message.stats?.prompt)?.stats;
  const used = (stats?.prompt ?? 0) + (stats?.tokens ?? 0);
  at("room").textContent = used && model?.context ? `${used} of ${model.context} tokens` : "";
  if (text) drawText(conversation);
  follow();
}

function drawText(conversation) {
  const area = at("text");
  const running = runs.has(conversation.id);
  if (area.value !== conversation.text) {
    const bottom = area.scrollHeight - area.scrollTop - area.clientHeight < 40;
    area.value = conversation.text;
    if (bottom) area.scrollTop = area.scrollHeight;
  }
  area.readOnly = running;
  const mark = conversation.mark;
  at("again").hidden = at("back").hidden = running || !mark || mark.at === conversation.text.length;
  at("text-note").textContent = running || !mark ? "" : [mark.note, statsOf(mark.stats)].filter(Boolean).join(" ");
  at("text-note").classList.toggle("failed", mark?.failed === true);
}

function showList() {
  const list = [...conversations.values()].sort((a, b) => b.updated - a.updated);
  const focused = document.activeElement?.dataset?.conversation;
  at("list").replaceChildren(
    ...list.map((conversation) => {
      const button = make("button", { type: "button", textContent: titleOf(conversation) });
      button.dataset.conversation = conversation.id;
      if (conversation === current) button.setAttribute("aria-current", "true");
      if (runs.has(conversation.id)) button.dataset.running = "";
      button.onclick = () => {
        openConversation(conversation);
        closeMenu();
      };
      return make("li", {}, button);
    }),
  );
  if (focused) at("list").querySelector(`[data-conversation="${CSS.escape(focused)}"]`)?.focus();
}

function follow() {
  const scroll = at("scroll");
  if (following) scroll.scrollTop = scroll.scrollHeight;
  at("latest").hidden = following;
}

function showModel() {
  at("model").textContent = model ? model.id : "";
  at("welcome").textContent = model ? model.id : "trit-run";
  const facts = [];
  if (model && !model.chat) facts.push("This model continues texts. Write a beginning.");
  if (model?.chat) facts.push("It runs on this server, and nothing you write goes elsewhere.");
  if (model?.context) facts.push(`It sees ${model.context} tokens at a time.`);
  at("about").textContent = facts.join(" ");
  at("thinking-field").hidden = !model?.thinks;
}

// Says what went wrong, with something to do about it where there is.
function notice(text, action, act) {
  const box = make("div", {}, make("p", { textContent: text }));
  if (action) {
    box.append(make("button", { type: "button", textContent: action, onclick: () => { at("notice").replaceChildren(); act(); } }));
  }
  box.append(make("button", { type: "button", textContent: "Close", onclick: () => at("notice").replaceChildren() }));
  at("notice").replaceChildren(box);
}

// ---- conversations

function openConversation(conversation) {
  current = conversation;
  following = true;
  try {
    history.replaceState(null, "", `#${conversation.id}`);
  } catch {
    // The address is only a convenience.
  }
  for (const view of views.values()) view.node.remove();
  views.clear();
  announcer.begin();
  show();
}

function startConversation() {
  openConversation(newConversation(model?.chat === false ? "text" : "chat", settings.system));
  toWriting();
}

// Moves the focus to where one writes; not where that brings up a keyboard on the screen unasked.
function toWriting() {
  if (!matchMedia("(pointer: coarse)").matches) at(current.mode === "text" ? "text" : "input").focus();
}

function send() {
  const text = at("input").value.trim();
  if (text === "" || runs.has(current.id)) return;
  at("input").value = "";
  growInput();
  following = true;
  const last = shownMessages(current).at(-1);
  answerTo(current, addMessage(current, last?.id ?? nobody, "user", text));
}

function growInput() {
  const input = at("input");
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

async function askModelAgain() {
  try {
    model = await askModel();
  } catch (failure) {
    if (failure.key) {
      if (await askForKey(failure.message)) await askModelAgain();
      else notice(failure.message, "Enter a key", askModelAgain);
    } else {
      notice(failure.message, "Try again", askModelAgain);
      // Large models take a while to load.
      if (failure.passing) setTimeout(askModelAgain, 1000);
    }
    return;
  }
  at("notice").replaceChildren();
  showModel();
  const untouched = current.messages.length === 0 && current.text === "";
  if (!model.chat && untouched) current.mode = "text";
  show();
}

// ---- the page begins

async function begin() {
  wire();
  showTheme();
  showModel();
  openConversation(newConversation("chat", settings.system));
  growInput();
  if (!(await store.open())) notice("This browser keeps nothing for this page. Conversations are lost when it is closed.");
  try {
    for (const conversation of await store.all()) conversations.set(conversation.id, conversation);
  } catch {
    notice("The conversations that this browser keeps could not be read.");
  }
  const kept = conversations.get(openedBefore);
  if (kept) openConversation(kept);
  else show();
  await askModelAgain();
  if (document.activeElement === document.body) toWriting();
}

begin();
