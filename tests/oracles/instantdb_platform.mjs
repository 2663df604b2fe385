// The official npm platform client against the server whose address comes in on stdin.
import { readFileSync } from 'node:fs';
import { i, PlatformApi } from '@instantdb/platform';

const settings = JSON.parse(readFileSync(0, 'utf8'));
const out = {};

async function refused(call) {
  try {
    await call();
    return { status: 200 };
  } catch (error) {
    return { status: error.status, type: error.body?.type, text: error.message };
  }
}

function summary(steps) {
  return steps.map((step) => [step.type, step.friendlyDescription, step.backgroundJob?.status]);
}

const first = i.schema({
  entities: {
    notes: i.entity({ title: i.string(), rank: i.number().optional(), slug: i.string().unique() }),
    tags: i.entity({ name: i.string() }),
  },
  links: {
    noteTags: {
      forward: { on: 'notes', has: 'many', label: 'tags' },
      reverse: { on: 'tags', has: 'many', label: 'notes' },
    },
  },
});
const second = i.schema({
  entities: {
    notes: i.entity({
      title: i.string().indexed(),
      rank: i.string().indexed().optional(),
      slug: i.string().optional(),
    }),
    tags: i.entity({ name: i.string() }),
  },
  links: first.links,
});
const third = i.schema({ entities: { notes: i.entity({ title: i.string().indexed() }) } });

const anonymous = new PlatformApi({ apiURI: settings.url });
const rules = { notes: { allow: { $default: 'false' } } };
const temporary = await anonymous.createTemporaryApp({
  title: 'temporary',
  schema: first,
  rules: { code: rules },
});
out.temporary = { ...temporary.app, expiresMs: temporary.expiresMs };

const api = new PlatformApi({ apiURI: settings.url, auth: { token: settings.admin_token } });
const app = settings.app_id;
out.app = (await api.getApp(app, { includeSchema: true, includePerms: true })).app;
out.plan = summary((await api.planSchemaPush(app, { schema: first })).steps);
out.push = summary((await api.schemaPush(app, { schema: first })).steps);
out.nothing = summary((await api.planSchemaPush(app, { schema: first })).steps);
out.changes = summary((await api.planSchemaPush(app, { schema: second })).steps);
const progress = [];
const job = api.schemaPush(app, { schema: second });
job.subscribe({ next: (status) => progress.push(status.inProgressCount) });
const pushed = await job;
out.pushed = summary(pushed.steps);
out.summary = { total: pushed.summary.totalCount, errors: pushed.summary.errorCount };
out.progress = progress;
out.overwrite_plan = summary(
  (await api.planSchemaPush(app, { schema: third, overwrite: true })).steps,
);
out.overwrite = summary((await api.schemaPush(app, { schema: third, overwrite: true })).steps);
const { schema } = await api.getSchema(app);
out.schema = Object.fromEntries(
  Object.entries(schema.entities).map(([name, entity]) => [name, Object.keys(entity.attrs)]),
);
out.title = schema.entities.notes.attrs.title;
out.push_perms = await api.pushPerms(app, { perms: rules });
out.perms = await api.getPerms(app);
out.stranger = await refused(() =>
  new PlatformApi({
    apiURI: settings.url,
    auth: { token: '11111111-1111-4111-8111-111111111111' },
  }).getSchema(app),
);
const personal = new PlatformApi({ apiURI: settings.url, auth: { token: settings.personal_token } });
out.created = (await personal.createApp({ title: 'mine', schema: third })).app;
out.deleted = (await personal.deleteApp(out.created.id)).app;
console.log(JSON.stringify(out));
