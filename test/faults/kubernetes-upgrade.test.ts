/** A node gets another release while pods run: two guests side by side, for as long as the verifier knows both. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { AttestedNode } from '../fixtures/kubernetes/attested.ts'
import type { TestContainerd } from '../fixtures/kubernetes/containerd.ts'
import type { KubernetesPod } from '../fixtures/kubernetes/kubelet.ts'
import { leftoversAfter } from '../fixtures/kubernetes/leftovers.ts'
import { retried } from '../fixtures/kubernetes/retries.ts'
import { anotherRelease } from './fixtures/release.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const MAIN = join(ROOT, 'cli/caisson.mjs')
const EXEC = ['/bin/sh', '-c', 'exit 0']
const UNKNOWN_GUEST = { message: /ERR_PCR_MISMATCH/ }

test.serial(
  'a node is upgraded with a pod running: old and new guest attest side by side, until the old one is retired',
  async (t) => {
    t.timeout(1_800_000)
    const node = await AttestedNode.start(t)
    const { tenant, containerd, image, initdata, referenceId } = node
    const release = await anotherRelease(tenant.path('release'), "Reflect.set(globalThis, 'caissonRelease', 2)")
    const guest = await release.buildGuest()
    t.not(guest.rootPath, tenant.guest.rootPath)

    const old = await (await node.runPod()).run('web', image)
    await old.logged(/served/)
    await containerd.upgradeDaemon(release.main)
    // Not known yet: a release reaches the verifier before it reaches nodes.
    await t.throwsAsync(runPod(node), UNKNOWN_GUEST)
    await tenant.expect(initdata, guest)
    const fresh = await runPod(node)
    await (await fresh.run('web', image)).logged(/served/)
    t.deepEqual(roots(containerd), [tenant.guest.rootPath, guest.rootPath].toSorted())
    t.is((await old.exec(EXEC)).exitCode, 0)

    // Nothing old begins any more; what runs goes on.
    await tenant.admin.retireReference(referenceId)
    await containerd.upgradeDaemon(MAIN)
    await t.throwsAsync(runPod(node), UNKNOWN_GUEST)
    await containerd.upgradeDaemon(release.main)
    t.is((await old.exec(EXEC)).exitCode, 0)
    await old.stop()
    t.is((await old.status()).exitCode, 5)
    await node.kubelet.removeAll()
    t.deepEqual(await leftoversAfter(containerd), [])
  },
)

/** The daemon, and with it the snapshotter, may just have been replaced. */
function runPod(node: AttestedNode): Promise<KubernetesPod> {
  return retried(() => node.runPod())
}

/** Root file systems that machines of the node run from. */
function roots(containerd: TestContainerd): readonly string[] {
  const lines = containerd.processes().map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
  const files = lines.flatMap((line) => [...line.matchAll(/"filename":"([^"]+)"/g)].map(([, path = '']) => path))
  return [...new Set(files.filter((path) => !path.startsWith(containerd.state)))].toSorted()
}
