/** From the annotations of a sandbox to the plan of its VM. */
import { gunzipSync } from 'node:zlib'
import { UsageError } from '#protocol/errors'
import type { Platform, TapNetwork } from '#vmm/types'
import { MAX_INITDATA_BYTES } from '../pod/disks.ts'
import { type ContainerLimits, type PodPlan, vmSize } from '../pod/pod-plan.ts'
import type { BlockDisk } from '../volumes/block-devices.ts'
import { ANNOTATION } from './annotations.ts'
import type { Bundle } from './bundle.ts'
import type { NodeConfig } from './node-config.ts'

const GZIP_MAGIC = 0x1f8b

/** @throws UsageError ERR_POD_ANNOTATION */
export async function planPod(
  podId: string,
  bundle: Bundle,
  network: TapNetwork | undefined,
  config: NodeConfig,
  disks: readonly BlockDisk[],
): Promise<PodPlan> {
  const { annotations } = bundle
  const platform = platformOf(annotations[ANNOTATION.platform] ?? config.platform)
  const guest = await config.guest()
  const name = `${annotations[ANNOTATION.podNamespace] ?? ''}/${annotations[ANNOTATION.podName] ?? ''}`
  return {
    id: podId,
    platform,
    accelerator: config.accelerator,
    guest: {
      kernel: guest.kernel,
      root: guest.root,
      commandLine: guest.commandLine[platform],
      ...(platform === 'tpm' ? { firmware: guest.firmware } : {}),
    },
    devices: disks.map(({ serial, path }) => ({ serial, path, readOnly: false, device: true })),
    ...vmSize([limitsOf(annotations)]),
    scratchMib: config.scratchMib,
    initdata: initdataOf(annotations[ANNOTATION.initdata]),
    network: network ?? 'none',
    ...(bundle.networkNamespace === undefined ? {} : { networkNamespace: bundle.networkNamespace }),
    ...(platform === 'tpm' ? { tpmCa: await config.tpmCa() } : {}),
    labels: { pod: name },
  }
}

/** Sums over the pod's containers, as the kubelet gives them; absent ones mean "no limit". */
function limitsOf(annotations: Bundle['annotations']): ContainerLimits {
  const number = (name: string): number => {
    const text = annotations[name] ?? '0'
    if (!/^-?[0-9]{1,18}$/.test(text)) throw badAnnotation(name, 'is no whole number')
    return Math.max(0, Number(text))
  }
  const bytes = number(ANNOTATION.sandboxMemory)
  const quota = number(ANNOTATION.sandboxCpuQuota)
  const period = number(ANNOTATION.sandboxCpuPeriod)
  return {
    ...(bytes > 0 ? { memoryMib: bytes / (1024 * 1024) } : {}),
    ...(quota > 0 && period > 0 ? { cpus: quota / period } : {}),
  }
}

function platformOf(text: string): Platform {
  if (text === 'tpm' || text === 'none') return text
  throw badAnnotation(ANNOTATION.platform, `is ${JSON.stringify(text)}; this node knows tpm and none`)
}

/** TOML in base64, as it is or compressed with gzip. */
function initdataOf(text: string | undefined): Uint8Array {
  if (text === undefined) {
    throw badAnnotation(ANNOTATION.initdata, 'is missing: without a policy a guest runs nothing')
  }
  const bytes = Buffer.from(text, 'base64')
  if (bytes.byteLength === 0 || bytes.toString('base64').replaceAll('=', '') !== text.replaceAll('=', '')) {
    throw badAnnotation(ANNOTATION.initdata, 'is not base64')
  }
  if (bytes.byteLength < 2 || bytes.readUInt16BE(0) !== GZIP_MAGIC) return bytes
  try {
    return gunzipSync(bytes, { maxOutputLength: MAX_INITDATA_BYTES })
  } catch (cause) {
    throw badAnnotation(ANNOTATION.initdata, 'does not unpack to initdata', cause)
  }
}

function badAnnotation(name: string, why: string, cause?: unknown): UsageError {
  return new UsageError('ERR_POD_ANNOTATION', `annotation ${name} ${why}`, {
    hint: 'Write it into the metadata of the pod; `caisson initdata create` makes initdata',
    ...(cause === undefined ? {} : { cause }),
  })
}
