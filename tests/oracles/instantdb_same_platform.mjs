// What our client does with schema and rules, done with the official npm platform client.
import { readFileSync } from 'node:fs';
import { i, PlatformApi } from '@instantdb/platform';

const settings = JSON.parse(readFileSync(0, 'utf8'));
const schema = i.schema({
  entities: {
    sandbox_sandboxes: i.entity({
      externalSandboxId: i.string().indexed().optional(),
      provider: i.string().indexed(),
      sandboxUrl: i.string().optional(),
      status: i.string().indexed(),
      timeout: i.number().optional(),
      runtime: i.string().optional(),
      vcpus: i.number().optional(),
      ports: i.json().optional(),
      purpose: i.string().indexed().optional(),
      params: i.json().optional(),
      createdAt: i.number().indexed(),
      updatedAt: i.number().indexed().optional(),
      shutdownAt: i.number().indexed().optional(),
    }),
    sandbox_fences: i.entity({
      key: i.string().unique().indexed(),
      createdAt: i.number().indexed().optional(),
    }),
  },
});
const closed = { allow: { $default: 'false' } };
const rules = { sandbox_sandboxes: closed, sandbox_fences: closed };
await new PlatformApi({ apiURI: settings.url }).createTemporaryApp({
  title: 'same',
  schema,
  rules: { code: rules },
});
const api = new PlatformApi({ apiURI: settings.url, auth: { token: settings.admin_token } });
await api.planSchemaPush(settings.app_id, { schema });
await api.schemaPush(settings.app_id, { schema });
await api.pushPerms(settings.app_id, { perms: rules });
await api.getPerms(settings.app_id);
console.log('{}');
