// The notes flow over gRPC, through streamflow's own interface (streamflow.proto): documents as JSON, the rest as msgpack.
// npm install; streamflow export proto protos; node grpc_client.mjs [127.0.0.1:54321] [protos]
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { decode, encode } from "@msgpack/msgpack";

const [address = "127.0.0.1:54321", protos = "protos"] = process.argv.slice(2);
const definition = loader.loadSync("streamflow.proto", { includeDirs: [protos], keepCase: true, defaults: true });
const { Streamflow } = grpc.loadPackageDefinition(definition).streamflow.v1;
const client = new Streamflow(address, grpc.credentials.createInsecure());

function request(endpoint, documents, parameters = {}) {
  return {
    endpoint,
    parameters: encode(parameters),
    content_type: "application/json",
    body: Buffer.from(JSON.stringify(documents)),
    deadline: Date.now() / 1000 + 10,
  };
}

// The documents of an answer. Its status is empty when all went well, else [code, description, exception, args, stacks, executor].
function documents(answer) {
  if (answer.status.length) throw new Error(decode(answer.status)[1]);
  return answer.body.length ? JSON.parse(answer.body) : [];
}

function unary(message) {
  return new Promise((resolve, reject) => client.Unary(message, (error, answer) => (error ? reject(error) : resolve(answer))));
}

const [counted] = documents(await unary(request("/count", [{ text: "the queue keeps the note" }], { top: 1 })));
console.log(`Unary: ${counted.words} words, most of all ${counted.top}`);

try {
  documents(await unary(request("/count", [{ txt: "no text" }])));
} catch (error) {
  console.log(`a mistake: ${error.message}`);
}

const words = [];
for await (const answer of client.Stream(request("/words", [{ text: "one by one" }]))) {
  words.push(...documents(answer).map((word) => word.text));
}
console.log(`Stream: ${words.join(", ")}`);
client.close();
