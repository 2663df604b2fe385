// The official npm admin client against the server whose address comes in on stdin.
import { Readable } from 'node:stream';
import { readFileSync } from 'node:fs';
import { i, init, lookup, tx } from '@instantdb/admin';

const settings = JSON.parse(readFileSync(0, 'utf8'));
const A = '11111111-1111-4111-8111-111111111111';
const B = '22222222-2222-4222-8222-222222222222';
const C = '33333333-3333-4333-8333-333333333333';
const out = {};

async function refused(call) {
  try {
    await call();
    return { status: 200 };
  } catch (error) {
    return { status: error.status, type: error.body?.type, text: error.message };
  }
}

const config = {
  appId: settings.app_id,
  adminToken: settings.admin_token,
  apiURI: settings.url,
};
const schema = i.schema({
  entities: {
    sandbox_sandboxes: i.entity({
      provider: i.string().indexed(),
      status: i.string().indexed(),
      params: i.json().optional(),
      createdAt: i.number().indexed(),
      updatedAt: i.number().indexed().optional(),
    }),
    sandbox_fences: i.entity({ key: i.string().unique().indexed() }),
  },
});
const loose = init({ ...config, disableValidation: true });
const strict = init({ ...config, schema });

const boxes = strict.tx.sandbox_sandboxes;
const base = { provider: 'local', status: 'active', updatedAt: undefined };
out.create = await strict.transact([
  boxes[A].create({ ...base, createdAt: 1 }),
  boxes[B].create({ ...base, createdAt: 2, params: { a: { x: 1 } } }),
]);
out.update = await strict.transact(boxes[A].update({ status: 'shutdown' }, { upsert: false }));
out.merge = await strict.transact(boxes[B].merge({ params: { a: { y: 2 } } }));
out.again = await refused(() => strict.transact(boxes[A].create({ ...base, createdAt: 3 })));
out.missing = await refused(() =>
  strict.transact(boxes[C].update({ status: 'x' }, { upsert: false })),
);
const fences = strict.tx.sandbox_fences;
out.fence = await strict.transact(fences[C].create({ key: 'k:1' }));
out.not_unique = await refused(() => strict.transact(fences[A].create({ key: 'k:1' })));
out.lookup = await loose.transact(
  loose.tx.sandbox_fences[lookup('key', 'k:1')].update({ createdAt: 9 }),
);
out.rows = await strict.query({
  sandbox_sandboxes: {
    $: {
      where: { createdAt: { $gte: 1 } },
      order: { createdAt: 'desc' },
      limit: 5,
      fields: ['status', 'createdAt', 'params'],
    },
  },
  sandbox_fences: {},
});
out.unknown = await loose.query({ nowhere: {} }, { ruleParams: { k: 1 } });
out.missing_attribute = await refused(() =>
  init({ ...config, schema, disableValidation: true }).transact(
    tx.sandbox_fences[A].update({ colour: 'red' }),
  ),
);
out.made_attribute = await loose.transact(tx.loose[A].update({ colour: 'red' }));
out.loose = await loose.query({ loose: {} });
out.upload = await strict.storage.uploadFile('dir/a.txt', Buffer.from('hello'), {
  contentType: 'text/plain',
});
out.stream = await strict.storage.uploadFile(
  'b.bin',
  Readable.from([Buffer.alloc(100000, 'x'), Buffer.alloc(100000, 'y')]),
  { fileSize: 200000 },
);
out.files = await loose.query({ $files: { $: { fields: ['path', 'size', 'url'] } } });
const [file] = out.files.$files;
out.download = await (await fetch(file.url)).text();
out.file_delete = await strict.storage.delete('b.bin');
out.file_delete_many = await strict.storage.deleteMany(['dir/a.txt', 'none']);
out.delete = await strict.transact([boxes[A].delete(), fences[C].delete()]);
out.left = await strict.query({ sandbox_sandboxes: { $: { fields: ['status'] } } });
out.token = await strict.auth.createToken({ email: 'a@example.com' });
out.as_email = await strict.asUser({ email: 'a@example.com' }).query({ sandbox_fences: {} });
out.as_token = await strict.asUser({ token: out.token }).query({ sandbox_fences: {} });
out.as_guest = await refused(() =>
  init({ ...config, adminToken: undefined }).asUser({ guest: true })
    .transact(tx.sandbox_fences[A].create({ key: 'guest' })),
);
out.stranger = await refused(() =>
  init({ ...config, adminToken: A }).query({ sandbox_fences: {} }),
);
console.log(JSON.stringify(out));
