/**
 * From a configured network to a sandbox that can run containers: initdata, attestation, policy, image policy, scratch.
 */
import { parseAuthFile } from '#image/auth/auth-file'
import { parseSignaturePolicy } from '#image/policy/parse'
import type { RegistryRoute } from '#image/registry/registries-conf'
import type { LookasideConfig } from '#image/signature/registries-d'
import { loadConditions } from '#policies/container-conditions'
import { PolicyEngine } from '#policies/engine'
import { parseWorkloadPolicy, type WorkloadPolicy } from '#policies/workload'
import { UnavailableError } from '#protocol/errors'
import { EventKind } from '#protocol/gen/agent_pb'
import { type Initdata, MAX_INITDATA_BYTES, parseInitdata } from '#protocol/initdata'
import { parseTenantKey } from '#protocol/tenant-key'
import type { Platform } from '../platform/platform.ts'
import { prepareContainerCgroup } from './container-cgroup.ts'
import { ContainerFactory } from './container-factory.ts'
import { Containers } from './containers.ts'
import { ImageMounts } from './image-mounts.ts'
import { ImageSource } from './image-source.ts'
import { LAST_REPORT_MS } from './limits.ts'
import { type ImageMeasurement, noMeasurement, TpmMeasurement } from './measurement.ts'
import { ipcSysctls, preparePod } from './pod-settings.ts'
import { PodVolumes } from './pod-volumes.ts'
import { pullEvents } from './pull-events.ts'
import { ReasonReports } from './reason-reports.ts'
import type { SandboxRequest } from './requests.ts'
import type { Attested, SandboxOptions, Verifier } from './sandbox.ts'
import { prepareScratch } from './scratch.ts'
import { SharedProcesses } from './shared-processes.ts'

const INITDATA_PATH = '/run/caisson/initdata.toml'
const IMAGE_MOUNTS_DIR = '/run/caisson/l'
/** In memory: what is written here and hashed afterwards cannot change in between. */
const INDEX_DIR = '/run/caisson/i'

/** Attests, fetches what the verifier releases, and prepares everything that containers need. */
export async function bringUp(options: SandboxOptions, request: SandboxRequest): Promise<Attested> {
  const { platform } = options
  const initdataToml = await platform.files.read(INITDATA_PATH, MAX_INITDATA_BYTES)
  const initdata = parseInitdata(initdataToml)
  if (initdata.tenantKeyJwk !== undefined) options.reasons.sealTo(parseTenantKey(initdata.tenantKeyJwk))
  const policy = parseWorkloadPolicy(initdata.policyYaml)
  const engine = new PolicyEngine(policy, await loadConditions(policy))
  const hosts = Object.fromEntries(request.hosts.map(({ name, address }) => [name, address]))
  // The disk needs no secrets of the verifier's, and both take a while.
  const scratch = prepareScratch(platform)
  scratch.catch(() => undefined)
  const verifier = await createVerifier(options, initdata, hosts)
  const work = () =>
    serveContainers(options, request, { initdataToml, initdata, policy, engine, hosts, scratch, verifier })
  if (verifier === undefined) return work()
  const { signedTime } = await verifier.attest({ initdataToml })
  platform.clock.set(signedTime)
  const reports = new ReasonReports({ clock: platform.clock, tell: (report) => verifier.tell(report) })
  options.reasons.reportTo((report) => reports.add(report))
  try {
    return await work()
  } catch (error) {
    // Nothing of this guest will run, and its host may end it as soon as it knows: the tenant is told first.
    options.refusals.record(error, 'StartSandbox')
    await Promise.race([reports.told(), platform.clock.sleep(LAST_REPORT_MS)])
    throw error
  }
}

interface Prepared {
  readonly initdataToml: Uint8Array
  readonly initdata: Initdata
  readonly policy: WorkloadPolicy
  readonly engine: PolicyEngine
  readonly hosts: Readonly<Record<string, string>>
  readonly scratch: Promise<string>
  readonly verifier: Verifier | undefined
}

/** What the host asks of the pod as a whole is judged here, once there is somebody to tell the reason to. */
async function serveContainers(
  options: SandboxOptions,
  request: SandboxRequest,
  { initdataToml, initdata, policy, engine, hosts, scratch, verifier }: Prepared,
): Promise<Attested> {
  const { platform } = options
  engine.admitNameServers(request.nameservers)
  for (const { name, value } of request.sysctls) engine.admitSysctl(name, value)
  await preparePod(platform.files, policy, request)
  const { measurement, resource } = afterAttestation(platform, verifier, initdataToml)
  const folder = await scratch
  const free = await platform.storage.freeBytes(folder)
  options.events.append({ kind: EventKind.SCRATCH, totalBytes: BigInt(free) })
  const images = await imageSource(options, initdata, policy.imagePolicy, { resource, hosts, scratch: folder })
  await prepareContainerCgroup(platform.files)
  const volumes = new PodVolumes({ platform, policy: engine, scratch: folder, resource })
  const factory = new ContainerFactory({
    platform,
    pull: (reference, onProgress, signers) => images.pull(reference, onProgress, signers),
    measurement,
    resource,
    certificate: verifier === undefined ? undefined : (asked, options) => verifier.getCertificate(asked, options),
    images: new ImageMounts(platform, IMAGE_MOUNTS_DIR),
    scratch: folder,
    volumes,
    hostname: request.hostname,
    sysctls: ipcSysctls(policy),
    shared: new SharedProcesses(platform),
  })
  const containers = new Containers({ platform, policy: engine, factory, events: options.events })
  if (engine.hasApi) await serveWorkloads(options, { engine, containers, verifier })
  // Now that the guest is attested, and before anybody asks for a container: what the policy names will be needed.
  const pinned = policy.containers.filter(({ digest }) => digest !== '')
  const named = pinned.map(({ repository, digest }) => `${repository}@${digest}`)
  void images.prefetch(named, pullEvents(options.events, '', platform.clock))
  return { policy: engine, containers, volumes }
}

/** Before any container exists, so that none can take the port. Loaded for policies that give a container access. */
async function serveWorkloads(
  { platform, refusals }: SandboxOptions,
  parts: { readonly engine: PolicyEngine; readonly containers: Containers; readonly verifier: Verifier | undefined },
): Promise<void> {
  const { startWorkloadApi } = await import('./workload-api.ts')
  const { engine, containers, verifier } = parts
  await startWorkloadApi({
    platform,
    policy: engine,
    containers: () => containers.list().map(({ parts: { id, cgroupPath } }) => ({ id, cgroupPath })),
    refusals,
    verifier,
  })
}

/** Undefined on platform `none`, which the measured command line names. */
async function createVerifier(
  { platform, createVerifier }: SandboxOptions,
  initdata: Initdata,
  hosts: Readonly<Record<string, string>>,
): Promise<Verifier | undefined> {
  if (platform.tpm === undefined) return undefined
  if (initdata.verifier === undefined) {
    throw new UnavailableError('ERR_VERIFIER_MISSING', 'the initdata names no verifier', {
      hint: 'Write the URL and the CA of your verifier into the initdata (aa.toml).',
    })
  }
  const { url, caPem } = initdata.verifier
  return createVerifier({ platform, url, caPem, hosts })
}

function afterAttestation(
  platform: Platform,
  verifier: Verifier | undefined,
  initdataToml: Uint8Array,
): { measurement: ImageMeasurement; resource: ((path: string) => Promise<Uint8Array>) | undefined } {
  if (verifier === undefined || platform.tpm === undefined) return { measurement: noMeasurement, resource: undefined }
  const measurement = new TpmMeasurement(platform.tpm, platform.crypto, async (images) => {
    const { signedTime } = await verifier.attest({ initdataToml, images })
    platform.clock.set(signedTime)
  })
  return { measurement, resource: (path) => verifier.getResource(path) }
}

async function imageSource(
  { platform, imageTools }: SandboxOptions,
  initdata: Initdata,
  inlinePolicy: unknown,
  input: {
    readonly resource: ((path: string) => Promise<Uint8Array>) | undefined
    readonly hosts: Readonly<Record<string, string>>
    readonly scratch: string
  },
): Promise<ImageSource> {
  const resource = input.resource ?? noResources
  const policyBytes =
    inlinePolicy === undefined
      ? await resource(initdata.imagePolicyResource ?? missingImagePolicy())
      : new TextEncoder().encode(JSON.stringify(inlinePolicy))
  const credentials = initdata.registryCredentialsResource
  await platform.files.mkdir(INDEX_DIR, 0o700)
  return new ImageSource({
    platform,
    tools: await imageTools(),
    http: await platform.network.http(initdata.registryCaPem, input.hosts, initdata.registryProxy),
    policy: parseSignaturePolicy(policyBytes),
    credentials: credentials === undefined ? undefined : parseAuthFile(await resource(credentials)),
    lookaside: await readLookaside(initdata.signatureStorageResource, resource),
    route: await readRoute(initdata.registriesConfResource, resource),
    pulls: initdata.pulls,
    resource,
    folder: `${input.scratch}/layers`,
    indexFolder: INDEX_DIR,
  })
}

type ResourceReader = (path: string) => Promise<Uint8Array>

/** The YAML reader is loaded for tenants who keep signatures so. */
async function readLookaside(path: string | undefined, resource: ResourceReader): Promise<LookasideConfig | undefined> {
  if (path === undefined) return undefined
  const { parseRegistriesD } = await import('#image/signature/registries-d')
  return parseRegistriesD([{ name: path, text: new TextDecoder().decode(await resource(path)) }])
}

async function readRoute(path: string | undefined, resource: ResourceReader): Promise<RegistryRoute | undefined> {
  if (path === undefined) return undefined
  const { parseRegistriesConf, routeBy } = await import('#image/registry/registries-conf')
  return routeBy(parseRegistriesConf(new TextDecoder().decode(await resource(path))))
}

function noResources(path: string): Promise<Uint8Array> {
  throw new UnavailableError('ERR_RESOURCE_UNAVAILABLE', `no verifier can release ${path} on this platform`, {
    hint: 'On platform none, write the image policy into the workload policy (imagePolicy).',
  })
}

function missingImagePolicy(): never {
  throw new UnavailableError(
    'ERR_IMAGE_POLICY_NONE',
    'neither the workload policy nor the initdata names an image policy',
    {
      hint: 'Name a resource as image_security_policy_uri in the initdata, or write imagePolicy into the policy.',
    },
  )
}
