// The official npm client against the server whose address comes in on stdin.
import { readFileSync } from "node:fs";
import { Sandbox, Snapshot } from "@vercel/sandbox";

const settings = JSON.parse(readFileSync(0, "utf8"));
const credentials = {
  token: settings.token,
  teamId: settings.team,
  projectId: settings.project,
  // It has no option for the address.
  fetch: (input, init) => {
    const given = input instanceof Request ? input.url : String(input);
    const url = given.replace("https://vercel.com/api", settings.url);
    return fetch(input instanceof Request ? new Request(url, input) : url, init);
  },
};
const out = {};

async function ran(box, script) {
  const done = await box.runCommand("sh", ["-c", script]);
  return [done.exitCode, await done.stdout(), await done.stderr()];
}

async function refused(call) {
  try {
    await call();
    return 200;
  } catch (error) {
    return error.response ? error.response.status : String(error);
  }
}

const ours = await Sandbox.get({ name: settings.ours, ...credentials });
out["ours"] = [ours.name, ours.status];
out["ours ran"] = await ran(ours, "cat from-us; echo from the sdk >from-sdk");

const box = await Sandbox.create({ name: "sdk-npm", runtime: "node24", ports: [3000], ...credentials });
out["created"] = [box.name, box.persistent, box.status];
out["domain"] = box.domain(3000).startsWith("https://");
out["ran"] = await ran(box, "echo 'é漢\u{1f600}'; echo no >&2; exit 3");
await box.writeFiles([{ path: "dir/file", content: Buffer.from(Array.from(Array(256).keys())) }]);
const back = await box.readFileToBuffer({ path: "dir/file" });
out["file"] = back.equals(Buffer.from(Array.from(Array(256).keys())));
out["missing file"] = (await box.readFileToBuffer({ path: "dir/none" })) === null;
await box.mkDir("made");
out["listed"] = await ran(box, "ls -A");
const detached = await box.runCommand({ cmd: "sleep", args: ["60"], detached: true });
await detached.kill("SIGTERM");
out["killed"] = (await detached.wait()).exitCode;
out["missing program"] = await refused(() => box.runCommand("no-such-program"));
await box.extendTimeout(60000);
out["timeout"] = box.timeout;
await box.stop();
out["stopped"] = (await Sandbox.get({ name: "sdk-npm", ...credentials })).status;
const resumed = await Sandbox.get({ name: "sdk-npm", resume: true, ...credentials });
out["kept"] = await ran(resumed, "wc -c <dir/file");
const snapshot = await resumed.snapshot();
out["snapshot"] = snapshot.snapshotId.startsWith("snap_");
out["duplicate"] = await refused(() => Sandbox.create({ name: "sdk-npm", ...credentials }));
const listed = await Sandbox.list(credentials);
out["names"] = [];
for await (const found of listed) out["names"].push(found.name);
out["names"].sort();
await resumed.delete();
out["gone"] = await refused(() => Sandbox.get({ name: "sdk-npm", ...credentials }));
console.log(JSON.stringify(out));
