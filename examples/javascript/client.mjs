// The notes flow from JavaScript, with nothing but what browsers have: fetch, EventSource, WebSocket.
// node --experimental-websocket --experimental-eventsource client.mjs [http://127.0.0.1:8080] [ws://127.0.0.1:8081]
const [http = "http://127.0.0.1:8080", ws = "ws://127.0.0.1:8081"] = process.argv.slice(2);

// One request, one answer. A failed request has a status of 400 and more, and says why in `header.status.description`.
export async function post(endpoint, documents, parameters = {}) {
  const response = await fetch(http + endpoint, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ data: documents, parameters }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${response.status}: ${answer.header?.status?.description ?? answer.detail}`);
  return answer.data;
}

// A streaming endpoint: `update` for each document, `end` after the last.
export function stream(endpoint, document, onDocument) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`${http}${endpoint}?${new URLSearchParams(document)}`);
    source.addEventListener("update", (event) => onDocument(JSON.parse(event.data)));
    source.addEventListener("end", () => resolve(source.close()));
    source.addEventListener("error", (event) => {
      source.close(); // an EventSource would ask again, and so would the stream begin again
      reject(new Error(event.data ?? "the connection failed"));
    });
  });
}

// Many requests on one socket, answers as they are ready: `requestId` tells which is which. An empty object ends the input.
export function exchange(requests, onAnswer) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(ws);
    socket.onopen = () => [...requests, {}].forEach((request) => socket.send(JSON.stringify(request)));
    socket.onmessage = (event) => onAnswer(JSON.parse(event.data));
    socket.onerror = () => reject(new Error(`${ws}: the connection failed`));
    socket.onclose = resolve;
  });
}

const [counted] = await post("/count", [{ text: "the queue keeps the note" }], { top: 1 });
console.log(`fetch: ${counted.words} words, most of all ${counted.top}`);

await post("/count", [{ txt: "no text" }]).catch((error) => console.log(`a mistake: ${error.message}`));

const words = [];
await stream("/words", { text: "one by one" }, (word) => words.push(word.text));
console.log(`EventSource: ${words.join(", ")}`);

const sizes = {};
const requests = ["a", "a b", "a b c"].map((text, at) => ({
  header: { requestId: `note-${at}`, execEndpoint: "/count" },
  data: [{ text }],
}));
await exchange(requests, (answer) => (sizes[answer.header.requestId] = answer.data[0].words));
console.log(`WebSocket: ${Object.keys(sizes).sort().map((id) => `${id} ${sizes[id]}`).join(", ")}`);
