/** A valid image configuration, an admitted container and a pulled image; a test changes what it is about. */
import type { StoredIndex, StoredLayer } from '#image/layer/store'
import type { ImageConfig } from '#image/manifest/config'
import type { PulledImage } from '#image/pull/pull-image'
import type { ContainerRule } from '#policies/container-rule'
import type { AdmittedContainer } from '#policies/engine'
import { parseReference } from '#protocol/oci/reference'

const DIGEST = `sha256:${'a'.repeat(64)}` as const

export function imageConfig(change: Partial<ImageConfig> = {}): ImageConfig {
  return {
    architecture: 'amd64',
    os: 'linux',
    user: 'web',
    exposedPorts: [],
    env: ['PATH=/bin', 'MODE=image'],
    entrypoint: ['/bin/server'],
    cmd: ['--quiet'],
    volumes: [],
    workingDir: '/srv',
    labels: new Map(),
    stopSignal: 'SIGQUIT',
    diffIds: [DIGEST],
    ...change,
  }
}

export function admittedContainer(
  change: Partial<AdmittedContainer> = {},
  rule: Partial<ContainerRule> = {},
): AdmittedContainer {
  return {
    containerId: 'c',
    reference: `registry.test/app@${DIGEST}`,
    args: undefined,
    env: [],
    mounts: [],
    devices: [],
    envSecrets: new Map(),
    sealedEnv: new Map(),
    processes: 'own',
    rule: {
      name: 'app',
      repository: 'registry.test/app',
      digest: DIGEST,
      sealedImage: undefined,
      signedBy: undefined,
      args: { kind: 'from-image' },
      seccomp: { kind: 'guest' },
      env: new Map(),
      user: undefined,
      groups: [],
      workingDir: undefined,
      mounts: [],
      devices: [],
      secrets: [],
      api: undefined,
      identity: undefined,
      readOnlyRoot: false,
      terminal: false,
      stdin: false,
      logs: true,
      terminationMessage: undefined,
      exec: [],
      ports: [],
      egress: undefined,
      signals: [],
      capabilities: ['KILL'],
      serviceEnv: false,
      resources: { memory: undefined, cpu: undefined, pids: undefined },
      conditions: [],
      role: 'main',
      requires: [],
      targetContainer: undefined,
      max: 1,
      ...rule,
    },
    ...change,
  }
}

function verityOf(letter: string) {
  return {
    dataBlockSize: 512,
    hashBlockSize: 4096,
    dataBlocks: 8,
    hashOffset: 4096,
    rootHash: letter.repeat(64),
    salt: '00',
  } as const
}

export function storedLayer(letter: string): StoredLayer {
  return {
    diffId: `sha256:${letter.repeat(64)}`,
    tarBytes: 4096,
    tar: { path: `/layers/${letter}.tar`, verity: verityOf(letter) },
    cataloguePath: `/layers/${letter}.entries`,
  }
}

/** Of an image whose layers all have content. */
export function storedIndex(letter: string, devices: readonly number[]): StoredIndex {
  return { chainId: `sha256:${letter.repeat(64)}`, path: `/layers/${letter}.erofs`, verity: verityOf(letter), devices }
}

export function pulledImage(layers: readonly StoredLayer[] = [storedLayer('a'), storedLayer('b')]): PulledImage {
  return {
    reference: parseReference(`registry.test/app@${DIGEST}`),
    manifestDigest: DIGEST,
    indexDigest: undefined,
    configDigest: `sha256:${'c'.repeat(64)}`,
    config: imageConfig(),
    documents: { manifest: new Uint8Array(), config: new Uint8Array() },
    layers,
    index: storedIndex(
      'f',
      layers.map((_, position) => position),
    ),
    admittedBy: 'default',
  }
}
