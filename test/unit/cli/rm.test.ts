import { mkdtemp, rm as remove, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { parseInvocation } from '#cli/command'
import { rm } from '#cli/commands/rm'
import { Output } from '#cli/output'
import { listPods } from '#host-shim/pod/control'
import { createPodState, podPaths } from '#host-shim/pod/state-dir'

test('`caisson rm ID` removes what a crashed run left, and never ends a container that runs', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'caisson-rm-'))
  t.teardown(() => remove(root, { recursive: true }))
  const run = (id: string) => rm.run(parseInvocation(rm, [id, '--state', root], new Output(true)))
  for (const id of ['alive', 'dead']) await createPodState(podPaths(root, id), { id, platform: 'none', labels: {} })
  const { record } = podPaths(root, 'dead')
  const [{ record: own } = { record: undefined }] = await listPods(root)
  const owner = { pid: process.pid, startTicks: (own?.owner.startTicks ?? 0) + 1 }
  await writeFile(record, JSON.stringify({ ...own, id: 'dead', owner }))
  t.is(await run('dead'), 0)
  await t.throwsAsync(run('alive'), { code: 'ERR_POD_RUNNING' })
  t.deepEqual(
    (await listPods(root)).map(({ id, state }) => [id, state]),
    [['alive', 'running']],
  )
})
