// Starts the SNS and SQS emulator on one loopback port.
// The package's own command line listens on every interface, hence buildApp.
//
// usage: node server.mjs PORT REGION
import process from "node:process";
import { buildApp } from "fauxqs";

const [port, region] = process.argv.slice(2);
const app = buildApp({ logger: false, defaultRegion: region });

process.on("SIGTERM", async () => {
  await app.close();
  process.exit(0);
});

await app.listen({ port: Number(port), host: "127.0.0.1" });
