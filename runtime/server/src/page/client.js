// Speaks with the server that the page came from, and with nobody else.

// Why a request failed, in words for a person.
class Failure extends Error {
  // `key`: a key is needed, or another one. `passing`: it may be otherwise in a moment.
  constructor(message, { key = false, passing = false } = {}) {
    super(message);
    this.key = key;
    this.passing = passing;
  }
}

// The key that the server wants, where it wants one. It is forgotten when the tab is closed.
const keyPlace = "trit-run.key";
let keyHere = null;

function apiKey() {
  return session((storage) => storage.getItem(keyPlace)) ?? keyHere;
}

function rememberKey(key) {
  keyHere = key;
  session((storage) => storage.setItem(keyPlace, key));
}

// Browsers may forbid a page to store anything; the page works without.
function session(use) {
  try {
    return use(window.sessionStorage);
  } catch {
    return null;
  }
}

// Sends a request; `body` is sent as JSON where there is one.
async function request(path, body, signal) {
  const headers = {};
  const key = apiKey();
  if (key) headers.authorization = `Bearer ${key}`;
  if (body !== undefined) headers["content-type"] = "application/json";
  const method = body === undefined ? "GET" : "POST";
  let response;
  try {
    response = await fetch(path, {
      method, headers, signal, body: JSON.stringify(body), cache: "no-store", credentials: "omit", redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server does not answer. Is trit-run still running?");
  }
  if (!response.ok) throw await failureOf(response);
  return response;
}

async function failureOf(response) {
  const { status } = response;
  const said = await response
    .json()
    .then((body) => String(body?.error?.message ?? body?.error ?? "").slice(0, 2000))
    .catch(() => "");
  if (status === 401) {
    const message = apiKey() ? "The server does not accept this key." : "This server wants a key.";
    return new Failure(message, { key: true });
  }
  if (status === 429) {
    const wait = Math.min(Number(response.headers.get("retry-after")) || 1, 3600);
    return new Failure(`The server is busy with others. Try again in ${wait} s.`);
  }
  if (status === 503) return new Failure(said || "The server takes no questions now.", { passing: true });
  return new Failure(said || `The server answered with an error (${status}).`);
}

// What there is to know of the model.
async function askModel() {
  const response = await request("/v1/models");
  const list = await response.json().catch(() => null);
  const model = list?.data?.[0];
  if (typeof model?.id !== "string") throw new Failure("The server names no model.");
  const meta = model.meta ?? {};
  return {
    id: model.id,
    chat: meta.chat_template !== false,
    thinks: meta.thinking === true,
    context: Number.isInteger(meta.n_ctx) ? meta.n_ctx : null,
    sampling: meta.sampling ?? {},
  };
}

// The data of server-sent events, as they arrive. Ends with the stream.
async function* serverEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let open = [];
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = value.split("\n");
      // A line may come in many parts; they are joined once.
      open.push(lines[0]);
      for (const next of lines.slice(1)) {
        const line = open.join("").replace(/\r$/, "");
        open = [next];
        if (line.startsWith("data:")) {
          data.push(line.slice(5).replace(/^ /, ""));
        } else if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    // Also where nobody reads on. What is left of the answer is not wanted.
    reader.cancel().catch(() => {});
  }
}

// The steps of an answer: objects with some of `thinking`, `text`, `finish` and `usage`.
async function* answer(path, body, signal) {
  const streamed = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await request(path, streamed, signal);
  try {
    for await (const data of serverEvents(response)) {
      if (data === "[DONE]") return;
      let event;
      try {
        event = JSON.parse(data);
      } catch {
        throw new Failure("The server sent something that is not an answer.");
      }
      if (event.error) throw new Failure(String(event.error.message ?? "The server broke off the answer.").slice(0, 2000));
      const choice = event.choices?.[0];
      const step = {
        thinking: textOf(choice?.delta?.reasoning_content),
        text: textOf(choice?.delta?.content ?? choice?.text),
        finish: choice?.finish_reason ?? null,
        usage: event.usage ?? null,
      };
      if (step.thinking || step.text || step.finish || step.usage) yield step;
    }
  } catch (error) {
    if (error instanceof Failure || error.name === "AbortError") throw error;
    throw new Failure("The connection broke before the answer was complete.");
  }
  throw new Failure("The connection ended before the answer was complete.");
}

const textOf = (value) => (typeof value === "string" ? value : "");
