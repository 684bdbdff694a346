/**
 * The process namespace that the containers of a pod share when the policy says so. A program of ours is its first process:
 * containers may come and go, and none of them is the one whose end ends the others.
 */
import type { OciRuntime, Platform } from '../platform/platform.ts'
import { CONTAINERS_CGROUP } from './container-cgroup.ts'
import { seccompProfile } from './seccomp.ts'

const BUNDLE = '/run/caisson/reaper'
const ID = 'reaper'
const PROGRAM = '/usr/lib/caisson/reaper'
const NOBODY = 65_534

export class SharedProcesses {
  readonly #platform: Pick<Platform, 'files' | 'runtime'>
  #namespace: Promise<string> | undefined

  constructor(platform: Pick<Platform, 'files' | 'runtime'>) {
    this.#platform = platform
  }

  /** Path of the namespace; made when first asked for. @throws UnavailableError ERR_RUNTIME */
  namespace(): Promise<string> {
    this.#namespace ??= this.#make().catch((error: unknown) => {
      this.#namespace = undefined
      throw error
    })
    return this.#namespace
  }

  async #make(): Promise<string> {
    const { files, runtime } = this.#platform
    // The runtime makes devices there, whether or not anything uses one.
    await files.mkdir(`${BUNDLE}/rootfs/dev`, 0o755)
    await files.write(`${BUNDLE}/config.json`, new TextEncoder().encode(JSON.stringify(specification())), 0o600)
    const running = await runtime.create(ID, BUNDLE, { terminal: false, stdin: false })
    await start(runtime)
    return `/proc/${running.pid}/ns/pid`
  }
}

async function start(runtime: OciRuntime): Promise<void> {
  try {
    await runtime.start(ID)
  } catch (error) {
    await runtime.delete(ID).catch(() => undefined)
    throw error
  }
}

/** Nothing but the program, with no right at all. */
function specification(): object {
  const none: readonly string[] = []
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: { uid: NOBODY, gid: NOBODY },
      args: ['/reaper'],
      env: none,
      cwd: '/',
      capabilities: { bounding: none, effective: none, permitted: none },
      noNewPrivileges: true,
    },
    root: { path: `${BUNDLE}/rootfs`, readonly: true },
    mounts: [
      { destination: '/reaper', type: 'bind', source: PROGRAM, options: ['bind', 'ro', 'nosuid', 'nodev'] },
      { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    ],
    linux: {
      cgroupsPath: `${CONTAINERS_CGROUP}/${ID}`,
      namespaces: ['pid', 'ipc', 'mount', 'cgroup'].map((type) => ({ type })),
      resources: { devices: [{ allow: false, access: 'rwm' }], pids: { limit: 16 } },
      seccomp: seccompProfile(none),
    },
  }
}
