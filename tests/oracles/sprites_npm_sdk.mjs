// The official npm client of Sprites against the server whose address comes in on stdin.
import { readFileSync } from "node:fs";
import { SpritesClient } from "@fly/sprites";

const settings = JSON.parse(readFileSync(0, "utf8"));
const client = new SpritesClient(settings.token, { baseURL: settings.url });
const home = settings.home;
const bytes = Buffer.from(Array.from(Array(256).keys()));
const out = {};

async function refused(call) {
  try {
    await call();
    return "";
  } catch (error) {
    return error.statusCode ?? error.status ?? error.code ?? String(error);
  }
}

async function ran(call) {
  try {
    const done = await call;
    return [done.exitCode, String(done.stdout), String(done.stderr)];
  } catch (error) {
    // A command that ended with another code than 0.
    return [error.exitCode ?? String(error), String(error.stdout), String(error.stderr)];
  }
}

async function events(stream) {
  const found = [];
  for await (const event of stream) found.push([event.type, event.data]);
  return found;
}

const made = await client.createSprite("oracle", { labels: ["a", "b"], waitForCapacity: true });
out["created"] = [made.name, made.status, made.labels, made.urlSettings.auth];
out["duplicate"] = await refused(() => client.createSprite("oracle"));
out["listed"] = (await client.listAllSprites()).map((one) => one.name);
out["missing"] = await refused(() => client.getSprite("nothing"));

out["run"] = await ran(made.execFile("sh", ["-c", "echo out; echo err >&2; exit 3"]));
// Without output: frames that arrive together are beyond it.
out["run over http"] = await ran(made.execFileHTTP("sh", ["-c", "exit 3"]));
const cat = made.spawn("cat");
const echoed = [];
cat.stdout.on("data", (chunk) => echoed.push(chunk));
await new Promise((begun) => cat.once("spawn", begun));
cat.stdin.end("given");
out["stdin"] = [await cat.wait(), Buffer.concat(echoed).toString()];
out["sessions"] = (await made.listSessions()).length;

const files = made.filesystem("/");
await files.writeFile(`${home}/folder/file`, bytes, { mode: 0o640 });
out["read"] = (await files.readFile(`${home}/folder/file`)).equals(bytes);
out["names"] = await files.readdir(`${home}/folder`);
await files.rename(`${home}/folder/file`, `${home}/folder/moved`);
out["moved"] = [await files.exists(`${home}/folder/moved`), await files.exists(`${home}/folder/file`)];
out["no file"] = await refused(() => files.readFile(`${home}/folder/file`));

out["checkpoint"] = await events(await made.createCheckpoint("from the oracle"));
out["checkpoints"] = (await made.listCheckpoints()).map((one) => [one.id, one.comment]);
await files.rm(`${home}/folder/moved`);
out["restore"] = (await events(await made.restoreCheckpoint("v1"))).at(-1)[0];
out["restored"] = await files.exists(`${home}/folder/moved`);

await made.delete();
out["deleted"] = await refused(() => client.getSprite("oracle"));
console.log(JSON.stringify(out));
process.exit(0);
