/** What a node keeps of a pod that ran on it through containerd: everything of it is searched. */
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { file } from '../component/image/fixtures/image.ts'
import { startCluster } from '../fixtures/kubernetes/cluster.ts'
import { formsOf, isGuestMemory, programOf, Search } from './fixtures/search.ts'

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
      ...hits(secret, containerd.folder),
      ...processes.flatMap((pid) => (existsSync(`/proc/${pid}`) ? secret.words(pid) : [])),
      ...processes.flatMap((pid) => {
        if (!existsSync(`/proc/${pid}`) || programOf(pid).startsWith('qemu')) return []
        return secret.memory(pid, (name) => !isGuestMemory(name))
      }),
    ]
    t.deepEqual(search(), [])
    // containerd keeps what it fetched: manifest and configuration. THREAT_MODEL.md says so.
    const kept = hits(visible, containerd.folder)
    t.true(
      kept.some((hit) => hit.includes('io.containerd.content.v1.content')),
      kept.join('\n'),
    )
    await pod.remove()
    t.deepEqual(search(), [])
    t.log(`${secret.bytes} bytes searched`)
  },
)

/** Hits in the names and contents of a folder's files, but for network namespaces, which look like files and are none. */
function hits(search: Search, root: string): readonly string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true }).flatMap((entry) => {
    const path = join(entry.parentPath, entry.name)
    const named = entry.name.includes(tag) ? [`name ${path}`] : []
    if (!entry.isFile() || path.includes('/netns/')) return named
    return [...named, ...search.file(path).map((form) => `${path}: ${form}`)]
  })
}
