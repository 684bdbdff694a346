/** The guest machine as Node sees it, assembled. Nothing is opened before it is used. */
import { openSync, writeSync } from 'node:fs'
import { FdStream, listenVsock, powerOff } from '#native/guest/index'
import { nodeCrypto } from '#protocol/node/crypto'
import type { AgentMemory, Platform, VsockListener } from '../platform.ts'
import { NodeClock } from './clock.ts'
import { nodeDiskCrypto } from './disk-crypto.ts'
import { nodeFiles } from './files.ts'
import { nodeNetwork } from './network.ts'
import { Crun } from './oci-runtime.ts'
import { nodeProcesses } from './processes.ts'
import { nodeStorage } from './storage.ts'
import { NodeTpm } from './tpm.ts'

const CONSOLE = '/dev/console'
const STATE_DIR = '/run/caisson'

/** @param options tpm: whether the machine has one (it is the measured command line that says so) */
export function nodePlatform(options: { readonly tpm: boolean }): Platform {
  return {
    files: nodeFiles,
    processes: nodeProcesses,
    runtime: new Crun({ files: nodeFiles, processes: nodeProcesses, stateDir: `${STATE_DIR}/crun` }),
    storage: nodeStorage(nodeFiles),
    network: nodeNetwork,
    tpm: options.tpm ? new NodeTpm() : undefined,
    clock: new NodeClock(),
    crypto: nodeCrypto,
    diskCrypto: nodeDiskCrypto,
    listenVsock: nodeListenVsock,
    memory: agentMemory,
    consoleCode,
    powerOff: async () => {
      await powerOff()
    },
  }
}

function nodeListenVsock(port: number): VsockListener {
  const listener = listenVsock(port)
  return {
    connections: (async function* () {
      for (let fd = await listener.accept(); fd !== null; fd = await listener.accept()) {
        yield new FdStream(fd, 'socket')
      }
    })(),
    close: () => listener.close(),
  }
}

const STATUS_BYTES = 16 * 1024

/** From /proc/self/status, whose figures are in KiB. */
async function agentMemory(): Promise<AgentMemory> {
  const text = new TextDecoder().decode(await nodeFiles.read('/proc/self/status', STATUS_BYTES))
  const bytes = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? 0) * 1024
  return { anonymousBytes: bytes('RssAnon'), residentBytes: bytes('VmRSS') }
}

let consoleDescriptor: number | undefined

function consoleCode(code: string): void {
  try {
    consoleDescriptor ??= openSync(CONSOLE, 'w')
    writeSync(consoleDescriptor, `caisson: ${code}\n`)
  } catch {
    // A machine without a console is no reason to stop.
  }
}
