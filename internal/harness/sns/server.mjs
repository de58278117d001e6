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
app.addHook("preHandler", async (request) => {
  const form = request.body;
  if (request.method === "POST" && typeof form?.Action === "string") {
    calls.push({ form, authorization: request.headers.authorization ?? "" });
  }
});
app.get("/_harness/calls", async () => calls);

process.on("SIGTERM", async () => {
  await app.close();
  process.exit(0);
});

await app.listen({ port: Number(port), host: "127.0.0.1" });
