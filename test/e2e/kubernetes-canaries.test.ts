/** What a node keeps of a pod that ran on it through containerd: everything of it is searched. */
import { randomBytes } from 'node:crypto'
import test from 'ava'
import { file } from '../component/image/fixtures/image.ts'
import { startCluster } from '../fixtures/kubernetes/cluster.ts'
import { filesWith, processesWith } from './fixtures/node-search.ts'
import { formsOf, programOf, Search } from './fixtures/search.ts'

const tag = `Canary${randomBytes(12).toString('hex')}`
const TELL = 'cat /canary; echo kept > /tmp/file; cat /canary >> /tmp/file; while :; do sleep 1; done'

const POLICY = (image: string): string => `
  - { name: teller, image: ${image}, args: [/bin/sh, -c, ${JSON.stringify(TELL)}] }
`

test.serial(
  'nothing of a layer, a file or the output of a pod is on its node; the image configuration is, and is found',
  async (t) => {
    const layers = [{ compression: 'gzip' as const, entries: [file('canary', `${tag}Layer\n`)] }]
    const { kubelet, containerd, image, initdata } = await startCluster(t, POLICY, { layers, env: [`C=${tag}Config`] })
    await kubelet.pull(image.reference)
    const pod = await kubelet.runPod({ name: 'teller', initdata })
    const teller = await pod.run('teller', image.reference, { command: ['/bin/sh', '-c', TELL] })
    // It runs, and its output exists inside.
    t.is((await teller.stats()).cpu?.usageCoreNanoSeconds !== undefined, true)
    const secret = new Search(formsOf(`${tag}Layer`))
    const visible = new Search(formsOf(`${tag}Config`))
    const processes = containerd.processes()
    const programs = processes.map(programOf)
    for (const program of ['containerd', 'containerd-shim-caisson-v2', 'caisson-pod', 'qemu-system-x86_64', 'node']) {
      t.true(programs.includes(program), `${program} among ${programs.join(', ')}`)
    }
    const search = (): readonly string[] => [
      ...filesWith(secret, containerd.folder, tag),
      ...processesWith(secret, containerd),
    ]
    t.deepEqual(search(), [])
    // containerd keeps what it fetched: manifest and configuration. THREAT_MODEL.md says so.
    const kept = filesWith(visible, containerd.folder, tag)
    t.true(
      kept.some((hit) => hit.includes('io.containerd.content.v1.content')),
      kept.join('\n'),
    )
    await pod.remove()
    t.deepEqual(search(), [])
    t.log(`${secret.bytes} bytes searched`)
  },
)
