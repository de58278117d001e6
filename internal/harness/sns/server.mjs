// Starts the SNS and SQS emulator on one loopback port.
// The package's own command line listens on every interface, hence buildApp.
//
// usage: node server.mjs PORT REGION
import process from "node:process";
import { buildApp } from "fauxqs";

const [port, region] = process.argv.slice(2);
const app = buildApp({ logger: false, defaultRegion: region });

// The emulator takes things that Amazon refuses (a MessageStructure of json
// without a default entry, for one), so tests want to see the calls themselves.
const calls = [];
// Closed, it takes no messages: until the topics have their queues, and while a
// test collects what there is before it ends the process, they would be lost.
let open = false;
app.addHook("preHandler", async (request, reply) => {
  const form = request.body;
  if (!open && typeof form?.Action === "string" && form.Action.startsWith("Publish")) {
    return reply.code(503).send("the emulator is starting or stopping");
  }
  if (request.method === "POST" && typeof form?.Action === "string") {
    calls.push({ form, authorization: request.headers.authorization ?? "" });
  }
});
app.get("/_harness/calls", async () => calls);
app.get("/_harness/open", async () => (open = true));
app.get("/_harness/close", async () => (open = false));

process.on("SIGTERM", async () => {
  await app.close();
  process.exit(0);
});

await app.listen({ port: Number(port), host: "127.0.0.1" });
