/**
 * From an admitted request to a created container: pull and verify, measure, fetch secrets, mount, derive the
 * specification, hand it to the runtime. Each step that leaves something behind says how to undo it.
 */
import type { PulledImage } from '#image/pull/pull-image'
import type { ContainerRule } from '#policies/container-rule'
import type { AdmittedContainer } from '#policies/engine'
import { parsePinned } from '#policies/image-rule'
import { UnavailableError } from '#protocol/errors'
import type { Platform, RunningProcess } from '../platform/platform.ts'
import { CONTAINERS_CGROUP } from './container-cgroup.ts'
import { makeEmptyVolume } from './empty-volume.ts'
import type { ImageMounts } from './image-mounts.ts'
import type { HeldImage, RequiredSigners } from './image-source.ts'
import { type ImageUser, resolveUser } from './image-user.ts'
import { mountImageVolumes } from './image-volumes.ts'
import {
  MAX_PASSWD_BYTES,
  MAX_REFERENCE_BYTES,
  MAX_SECRET_BYTES,
  MAX_SECRET_ENV_BYTES,
  TERMINATION_FILE_BYTES,
} from './limits.ts'
import type { ImageMeasurement } from './measurement.ts'
import { type BindMount, buildOciSpec, buildProcess, type OciProcess } from './oci-spec.ts'
import type { CertificateSource } from './pod-identity.ts'
import type { PodVolumes } from './pod-volumes.ts'
import type { ResourceLimits } from './requests.ts'
import { mountRootfs } from './rootfs.ts'
import { SANDBOX_FILE_BINDS } from './sandbox-files.ts'
import type { SharedProcesses } from './shared-processes.ts'
import type { ProgressListener } from './shared-progress.ts'

const CONTAINERS_DIR = '/run/caisson/containers'
const TERMINATION_MESSAGE_FILE = 'message/text'

export interface FactoryOptions {
  readonly platform: Platform
  readonly pull: (
    reference: string,
    onProgress: ProgressListener,
    signers: RequiredSigners | undefined,
  ) => Promise<HeldImage>
  readonly measurement: ImageMeasurement
  /** A resource of the verifier; undefined on platform `none`. */
  readonly resource: ((path: string) => Promise<Uint8Array>) | undefined
  /** Certificates of the verifier; undefined on platform `none`. */
  readonly certificate: CertificateSource | undefined
  readonly images: ImageMounts
  /** Directory of the scratch disk. */
  readonly scratch: string
  readonly volumes: PodVolumes
  readonly hostname: string
  /** Of every container's IPC namespace. */
  readonly sysctls: Readonly<Record<string, string>>
  readonly shared: SharedProcesses
}

export interface CreateInput {
  readonly admitted: AdmittedContainer
  readonly runtimeId: string
  /** The first process of the container whose processes this one sees; throws when it does not run. */
  readonly targetPid: (() => number) | undefined
  readonly terminal: boolean
  readonly stdin: boolean
  readonly resources: ResourceLimits
  readonly onProgress: ProgressListener
  readonly onMeasured: () => void
}

export interface CreatedContainer {
  readonly image: PulledImage
  readonly cgroupPath: string
  readonly firstProcess: OciProcess
  readonly running: RunningProcess
  /** The guest's path of the file with the container's last words; undefined where the policy lets none out. */
  readonly messagePath: string | undefined
}

export class ContainerFactory {
  readonly #options: FactoryOptions

  constructor(options: FactoryOptions) {
    this.#options = options
  }

  /** @param undo gets what has to be undone, also when this fails half-way */
  async create(input: CreateInput, undo: AsyncDisposableStack): Promise<CreatedContainer> {
    const { platform, pull, images, scratch, volumes, hostname } = this.#options
    const { admitted, runtimeId, terminal, stdin } = input
    const { image, release } = await pull(await this.#reference(admitted), input.onProgress, signersOf(admitted.rule))
    undo.defer(release)
    await this.#measure(image, input)
    const bundle = `${CONTAINERS_DIR}/${runtimeId}`
    undo.defer(() => platform.files.remove(bundle))
    await platform.files.mkdir(bundle, 0o711)
    const devices = await volumes.devices(admitted.devices)
    const binds = [
      ...SANDBOX_FILE_BINDS,
      ...(await this.#volumes(admitted, runtimeId, bundle, undo)),
      ...(await this.#terminationMessage(admitted, bundle, undo)),
      ...(await this.#secrets(admitted, bundle)),
      ...(await this.#identity(admitted, bundle, undo)),
    ]
    const rootfs = `${bundle}/rootfs`
    const writable = `${scratch}/containers/${runtimeId}`
    await mountRootfs(platform, images, { image, writable, target: rootfs }, undo)
    const taken = admitted.mounts.map(({ path }) => path)
    const declared = { image, declared: image.config.volumes, taken, writable, bundle }
    const imageVolumes = await mountImageVolumes(platform, images, declared, undo)
    const user = await this.#user(rootfs, admitted.rule.user ?? image.config.user)
    const cgroupPath = `${CONTAINERS_CGROUP}/${runtimeId}`
    const env = [...admitted.env, ...(await this.#secretEnv(admitted)), ...(await this.#unsealedEnv(admitted))]
    const base = { config: image.config, admitted: { ...admitted, env }, user, hostname, terminal }
    const { resources } = input
    const { sysctls } = this.#options
    const processes = await this.#processNamespace(input, bundle, undo)
    const spec = buildOciSpec({
      ...base,
      rootfs,
      cgroupPath,
      resources,
      imageVolumes,
      binds,
      devices,
      sysctls,
      processes,
    })
    await platform.files.write(`${bundle}/config.json`, new TextEncoder().encode(JSON.stringify(spec)), 0o600)
    undo.defer(() => platform.runtime.delete(runtimeId))
    const running = await platform.runtime.create(runtimeId, bundle, { terminal, stdin })
    await this.#confine(admitted.rule, cgroupPath)
    const messagePath =
      admitted.rule.terminationMessage === undefined ? undefined : `${bundle}/${TERMINATION_MESSAGE_FILE}`
    return { image, cgroupPath, firstProcess: buildProcess(base), running, messagePath }
  }

  /** Its first process waits to be started. Loaded for containers that are held to something. */
  async #confine({ egress }: ContainerRule, cgroupPath: string): Promise<void> {
    if (egress === undefined) return
    const { egressPrograms } = await import('./egress-program.ts')
    await this.#options.platform.network.confine(cgroupPath, egressPrograms(egress))
  }

  /** Of an image whose reference is sealed, it comes with the verifier's secrets and goes to nobody. */
  async #reference({ reference }: AdmittedContainer): Promise<string> {
    if (typeof reference === 'string') return reference
    const bytes = await this.#released(reference.resource, MAX_REFERENCE_BYTES)
    const pinned = parsePinned(textOf(bytes)?.trim() ?? '')
    if (pinned !== undefined) return `${pinned.repository}@${pinned.digest}`
    throw new UnavailableError('ERR_SEALED_IMAGE', `${reference.resource} holds no reference with a digest`, {
      hint: 'Store host/path@sha256:… in the resource.',
    })
  }

  /** Path of the process namespace to join; undefined: one of its own. */
  async #processNamespace(
    { admitted, targetPid }: CreateInput,
    bundle: string,
    undo: AsyncDisposableStack,
  ): Promise<string | undefined> {
    if (targetPid === undefined) return admitted.processes === 'pod' ? this.#options.shared.namespace() : undefined
    const { files, storage } = this.#options.platform
    const target = `${bundle}/processes`
    await files.write(target, new Uint8Array(), 0o400)
    await storage.mount({ source: `/proc/${targetPid()}/ns/pid`, target, type: '', flags: ['bind'], data: '' })
    undo.defer(() => storage.unmount(target))
    // It still runs, so the number has meant this process all the time.
    targetPid()
    return target
  }

  async #measure(image: PulledImage, { admitted, onMeasured }: CreateInput): Promise<void> {
    const isNew = await this.#options.measurement.admit({
      container: admitted.rule.name,
      manifest: image.manifestDigest,
      config: image.configDigest,
      diffIds: image.config.diffIds,
    })
    if (isNew) onMeasured()
  }

  /** Volumes of the pod, and those of its own that lie on the scratch disk; of its own in memory, the runtime makes. */
  async #volumes(
    admitted: AdmittedContainer,
    runtimeId: string,
    bundle: string,
    undo: AsyncDisposableStack,
  ): Promise<readonly BindMount[]> {
    const { platform, scratch, volumes } = this.#options
    const binds: BindMount[] = []
    const own = `${scratch}/volumes/${runtimeId}`
    if (admitted.mounts.length > 0) undo.defer(() => platform.files.remove(own))
    // One after the other: each leaves something to undo.
    for (const [index, mount] of admitted.mounts.entries()) {
      const { volume, path: destination, readOnly, maxBytes } = mount
      const target = `${bundle}/volume-${index}`
      if (volume !== undefined) binds.push(await volumes.mount({ ...mount, volume }, target, undo))
      else if (mount.kind === 'scratch') {
        const plan = { kind: 'scratch', maxBytes, gid: undefined } as const
        const places = { scratch: `${own}/${index}`, target }
        binds.push({ source: await makeEmptyVolume(platform, plan, places, undo), destination, readOnly })
      }
    }
    return binds
  }

  /** NAME=VALUE for the variables that the policy sets from resources. */
  async #secretEnv(admitted: AdmittedContainer): Promise<readonly string[]> {
    return Promise.all(
      [...admitted.envSecrets].map(async ([name, path]) =>
        variable(name, path, await this.#released(path, MAX_SECRET_ENV_BYTES)),
      ),
    )
  }

  /** NAME=VALUE for the variables that the host set to sealed secrets. */
  async #unsealedEnv({ rule, sealedEnv }: AdmittedContainer): Promise<readonly string[]> {
    return Promise.all(
      [...sealedEnv].map(async ([name, sealed]) => {
        const field = `containers.${rule.name}.env.${name}`
        return variable(name, 'what is sealed', await this.#unsealed({ ...sealed, field }, MAX_SECRET_ENV_BYTES))
      }),
    )
  }

  /** Loaded for a container that has something sealed. */
  async #unsealed(
    input: { readonly sealed: string; readonly key: string; readonly field: string },
    maxBytes: number,
  ): Promise<Uint8Array> {
    const { unseal } = await import('./unseal.ts')
    return unseal({ ...input, resource: (path) => this.#released(path, maxBytes) })
  }

  /** A resource of the verifier of at most `maxBytes`. */
  async #released(path: string, maxBytes: number): Promise<Uint8Array> {
    const { resource } = this.#options
    if (resource === undefined) {
      throw new UnavailableError('ERR_SECRET_UNAVAILABLE', `no verifier can release ${path} here`, {
        hint: 'Platform none has no attestation; run on a platform that has, or remove the secret from the policy.',
      })
    }
    const bytes = await resource(path)
    if (bytes.byteLength <= maxBytes) return bytes
    bytes.fill(0)
    throw new UnavailableError('ERR_SECRET_UNAVAILABLE', `${path} has more than ${maxBytes} bytes`, {
      hint: 'Store a smaller resource.',
    })
  }

  /** Files in guest memory, mounted read-only over their paths. */
  async #secrets(admitted: AdmittedContainer, bundle: string): Promise<readonly BindMount[]> {
    const { platform } = this.#options
    const { secrets } = admitted.rule
    return Promise.all(
      secrets.map(async (secret, index) => {
        const bytes =
          secret.source.kind === 'resource'
            ? await this.#released(secret.source.resource, MAX_SECRET_BYTES)
            : await this.#unsealed(
                { ...secret.source, field: `containers.${admitted.rule.name}.secrets` },
                MAX_SECRET_BYTES,
              )
        const source = `${bundle}/secret-${index}`
        const owner = { uid: secret.uid, gid: secret.gid }
        await platform.files.write(source, bytes, secret.mode, owner).finally(() => bytes.fill(0))
        return { source, destination: secret.path, readOnly: true }
      }),
    )
  }

  /** Loaded for those containers that have one. */
  async #identity(
    { rule }: AdmittedContainer,
    bundle: string,
    undo: AsyncDisposableStack,
  ): Promise<readonly BindMount[]> {
    if (rule.identity === undefined) return []
    const { platform, certificate } = this.#options
    if (certificate === undefined) {
      throw new UnavailableError('ERR_IDENTITY_UNAVAILABLE', 'no verifier can issue a certificate here', {
        hint: 'Platform none has no attestation; run on a platform that has, or remove `identity` from the policy.',
      })
    }
    const { provideIdentity } = await import('./pod-identity.ts')
    return [await provideIdentity({ platform, certificate }, rule.identity, `${bundle}/identity`, undo)]
  }

  /** A small file system of its own: whatever a container writes there, it takes no more of the guest's memory. */
  async #terminationMessage(
    { rule }: AdmittedContainer,
    bundle: string,
    undo: AsyncDisposableStack,
  ): Promise<readonly BindMount[]> {
    if (rule.terminationMessage === undefined) return []
    const { files, storage } = this.#options.platform
    const target = `${bundle}/message`
    await files.mkdir(target, 0o700)
    const data = `mode=0700,size=${TERMINATION_FILE_BYTES},nr_inodes=8`
    await storage.mount({ source: 'tmpfs', target, type: 'tmpfs', flags: ['nosuid', 'nodev', 'noexec'], data })
    undo.defer(() => storage.unmount(target))
    const source = `${bundle}/${TERMINATION_MESSAGE_FILE}`
    await files.write(source, new Uint8Array(), 0o666)
    return [{ source, destination: rule.terminationMessage, readOnly: false }]
  }

  async #user(rootfs: string, spec: string): Promise<ImageUser> {
    const text = async (path: string) => {
      const bytes = await this.#options.platform.files.readInRoot(rootfs, path, MAX_PASSWD_BYTES)
      return bytes === undefined ? '' : new TextDecoder().decode(bytes)
    }
    return resolveUser(spec, await text('/etc/passwd'), await text('/etc/group'))
  }
}

/** Undefined where a digest decides. */
function signersOf({ name, signedBy }: ContainerRule): RequiredSigners | undefined {
  return signedBy === undefined ? undefined : { place: `containers.${name}.signedBy`, signers: signedBy }
}

/** @param what for the error. `bytes` are cleared */
function variable(name: string, what: string, bytes: Uint8Array): string {
  const value = textOf(bytes)
  bytes.fill(0)
  if (value !== undefined) return `${name}=${value}`
  throw new UnavailableError('ERR_SECRET_UNAVAILABLE', `${what} is no text, so ${name} cannot be set to it`, {
    hint: 'Store text in the resource, or have the policy give it as a file.',
  })
}

/** UTF-8 without NUL, which would end a variable early. */
function textOf(bytes: Uint8Array): string | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    return text.includes('\0') ? undefined : text
  } catch {
    return undefined
  }
}
