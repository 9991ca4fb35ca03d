// Buttons, keys, dialogs and settings.

const samplingFields = [
  { name: "temperature", label: "Temperature", min: 0, step: "any", hint: "0 takes the most probable token" },
  { name: "top_p", label: "Top P", min: 0, max: 1, step: "any", hint: "Tokens that reach this probability" },
  { name: "top_k", label: "Top K", min: 0, step: 1, hint: "This many tokens; 0 takes all" },
  { name: "min_p", label: "Min P", min: 0, max: 1, step: "any", hint: "Part of the best token's probability" },
  { name: "repeat_penalty", label: "Repeat penalty", min: 0.01, step: "any", hint: "1 is none" },
  { name: "max_tokens", label: "Max tokens", min: 1, step: 1, hint: "Longest answer" },
  { name: "seed", label: "Seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, hint: "The same seed gives the same answer" },
];

// The conversation that the address names when the page is opened.
const openedBefore = location.hash.slice(1);

function wire() {
  const input = at("input");
  at("composer").onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  input.oninput = growInput;
  input.onkeydown = (event) => {
    if (!sends(event)) return;
    event.preventDefault();
    send();
  };
  for (const button of document.querySelectorAll(".stop")) {
    button.onclick = () => {
      stop();
      toWriting();
    };
  }
  at("skip").onclick = (event) => {
    event.preventDefault();
    at(current.mode === "text" ? "text" : "input").focus();
  };
  at("new").onclick = () => {
    closeMenu();
    startConversation();
  };
  at("menu").onclick = openMenu;
  at("shade").onclick = closeMenu;
  at("theme").onclick = nextTheme;
  at("export").onclick = () => download([...conversations.values()], "conversations");
  at("export-one").onclick = () => {
    at("more").hidePopover();
    download([current], "conversation");
  };
  at("import").onclick = () => at("file").click();
  at("file").onchange = importFile;
  at("rename").onclick = rename;
  at("delete").onclick = remove;
  at("settings-open").onclick = openSettings;
  at("reset").onclick = () => {
    for (const field of at("fields").querySelectorAll("input")) field.value = "";
    at("thinking").value = "";
  };
  at("latest").onclick = () => {
    following = true;
    follow();
  };
  at("scroll").onscroll = () => {
    const { scrollHeight, scrollTop, clientHeight } = at("scroll");
    following = scrollHeight - scrollTop - clientHeight < 80;
    at("latest").hidden = following;
  };
  for (const choice of document.querySelectorAll('input[name="mode"]')) {
    choice.onchange = () => {
      current.mode = choice.value;
      show();
      choice.focus();
    };
  }
  wireText();
  // Copy buttons of code are made by the renderer, which knows nothing of the page.
  at("messages").addEventListener("click", (event) => {
    if (event.target.dataset?.copy !== "code") return;
    copyText(event.target.closest(".code").querySelector("code").textContent, event.target);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open], [popover]:popover-open")) return;
    if (document.body.classList.contains("menu")) closeMenu();
    else stop();
  });
  // A page that is hidden may be closed without a word.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "hidden") return;
    for (const id of runs.keys()) if (conversations.has(id)) save(conversations.get(id));
  });
  if (tabs) tabs.onmessage = ({ data }) => takeOver(data);
  for (const field of samplingFields) makeField(field);
}

function wireText() {
  const area = at("text");
  area.oninput = () => {
    current.text = area.value;
    current.mark = null;
    at("again").hidden = at("back").hidden = true;
    at("text-note").textContent = "";
    at("title").textContent = titleOf(current);
    clearTimeout(wireText.later);
    const conversation = current;
    wireText.later = setTimeout(() => changed(conversation), 500);
  };
  area.onkeydown = (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    at("continue").click();
  };
  at("continue").onclick = () => {
    if (runs.has(current.id)) return;
    if (current.mark) current.mark.tries = 0;
    continueText(current);
  };
  const takeBack = () => {
    if (current.mark) current.text = current.text.slice(0, current.mark.at);
  };
  at("again").onclick = () => {
    takeBack();
    continueText(current);
    area.focus();
  };
  at("back").onclick = () => {
    takeBack();
    current.mark = null;
    changed(current);
    show();
    area.focus();
  };
}

// Another tab has changed a conversation, or deleted it.
async function takeOver(id) {
  if (typeof id !== "string" || runs.has(id)) return;
  const found = await store.one(id).catch(() => undefined);
  if (found) conversations.set(id, found);
  else conversations.delete(id);
  if (current.id === id && found) current = found;
  show();
}

// ---- the menu of narrow screens

function openMenu() {
  document.body.classList.add("menu");
  at("shade").hidden = false;
  at("menu").setAttribute("aria-expanded", "true");
  document.querySelector("main").inert = true;
  at("new").focus();
}

function closeMenu() {
  if (!document.body.classList.contains("menu")) return;
  document.body.classList.remove("menu");
  at("shade").hidden = true;
  at("menu").setAttribute("aria-expanded", "false");
  document.querySelector("main").inert = false;
  at("menu").focus();
}

// ---- themes

const themes = ["automatic", "light", "dark"];

function nextTheme() {
  settings.theme = themes[(themes.indexOf(settings.theme) + 1) % themes.length];
  saveSettings();
  showTheme();
}

function showTheme() {
  if (!themes.includes(settings.theme)) settings.theme = themes[0];
  document.documentElement.dataset.theme = settings.theme;
  at("theme").textContent = `Theme: ${settings.theme}`;
}

// ---- dialogs

// Opens a dialog; true where it was confirmed.
function confirmed(dialog) {
  dialog.showModal();
  return new Promise((done) => {
    // Closed here and now: until the event of closing comes, the page could already be used as it was before.
    dialog.firstElementChild.onsubmit = (event) => {
      event.preventDefault();
      dialog.close();
      done(event.submitter?.value === "save");
    };
    dialog.onclose = () => done(false);
  });
}

let keyAsked = null;

// Asks for a key; true where one was given. Requests that fail together ask once.
function askForKey(why) {
  keyAsked ??= (async () => {
    at("key-why").textContent = why;
    at("key-value").value = "";
    const given = await confirmed(at("key"));
    if (given) rememberKey(at("key-value").value);
    at("key-value").value = "";
    keyAsked = null;
    return given;
  })();
  return keyAsked;
}

async function rename() {
  at("more").hidePopover();
  const conversation = current;
  ask("Rename this conversation", "", "Rename");
  at("ask-field").hidden = false;
  at("ask-value").value = titleOf(conversation);
  at("ask-value").select();
  const done = confirmed(at("ask"));
  if (!(await done)) return;
  conversation.title = at("ask-value").value.trim();
  changed(conversation);
  show();
}

async function remove() {
  at("more").hidePopover();
  const conversation = current;
  ask(`Delete “${titleOf(conversation)}”?`, "It cannot be brought back.", "Delete");
  if (!(await confirmed(at("ask")))) return;
  // Nothing saves it any more; and it is gone from the page when it is gone from the browser.
  conversations.delete(conversation.id);
  runs.get(conversation.id)?.control.abort();
  saving = saving.then(() => store.remove(conversation.id)).then(
    () => tabs?.postMessage(conversation.id),
    (failure) => notice(failure.message),
  );
  await saving;
  startConversation();
}

function ask(title, why, yes) {
  at("ask-title").textContent = title;
  at("ask-why").textContent = why;
  at("ask-yes").textContent = yes;
  at("ask-field").hidden = true;
}

// ---- settings

function makeField({ name, label, hint, ...limits }) {
  const input = make("input", { type: "number", id: `sampling-${name}`, inputMode: "decimal", ...limits });
  input.setAttribute("aria-describedby", `sampling-${name}-hint`);
  const title = make("label", { htmlFor: input.id, textContent: label });
  const under = make("p", { id: `sampling-${name}-hint`, className: "soft", textContent: hint });
  at("fields").append(make("div", {}, title, input, under));
}

async function openSettings() {
  const conversation = current;
  at("system").value = conversation.system;
  at("thinking").value = settings.thinking;
  for (const { name } of samplingFields) {
    const input = at(`sampling-${name}`);
    input.value = settings.sampling[name] ?? "";
    const suggested = model?.sampling?.[name];
    input.placeholder = Number.isFinite(suggested) ? String(Number(suggested.toPrecision(6))) : "";
  }
  if (!(await confirmed(at("settings")))) return;
  conversation.system = settings.system = at("system").value;
  settings.thinking = at("thinking").value;
  settings.sampling = {};
  for (const { name } of samplingFields) {
    const { valueAsNumber } = at(`sampling-${name}`);
    if (Number.isFinite(valueAsNumber)) settings.sampling[name] = valueAsNumber;
  }
  saveSettings();
  if (conversations.has(conversation.id)) changed(conversation);
}

// ---- files

function download(list, name) {
  const url = URL.createObjectURL(new Blob([exported(list)], { type: "application/json" }));
  make("a", { href: url, download: `trit-run-${name}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

async function importFile() {
  const [file] = at("file").files;
  at("file").value = "";
  if (!file) return;
  let found;
  try {
    found = imported(await file.text());
  } catch (failure) {
    notice(failure instanceof Failure ? failure.message : "This file could not be read.");
    return;
  }
  for (const conversation of found) {
    conversations.set(conversation.id, conversation);
    save(conversation);
  }
  if (found.length > 0) openConversation(found[0]);
  closeMenu();
}
