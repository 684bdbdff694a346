import { randomBytes } from 'node:crypto'
import { buildGuest } from '#guest/build/build'
import { DEFAULT_SCRATCH_MIB, type PodPlan, vmSize } from '#host-shim/pod/pod-plan'
import { UsageError } from '#protocol/errors'
import { parseInitdata } from '#protocol/initdata'
import { chooseAccelerator } from '#vmm/qemu/accelerator'
import { createTpmCa } from '#vmm/swtpm'
import { buildProgress } from '../build-progress.ts'
import type { CommandSpec, Invocation } from '../command.ts'
import { EXIT_RUN_FAILED } from '../exit-code.ts'
import { readUserFile } from '../files.ts'
import { STATE_OPTION, stateRootOf } from '../pods.ts'
import { foresee } from '../run/foresee.ts'
import { type ContainerWish, runPod } from '../run/run-pod.ts'
import { INITDATA_OPTIONS, initdataFromOptions } from './initdata.ts'

export const run: CommandSpec = {
  path: 'run',
  summary:
    'Runs an image in a confidential container on this machine: boots a measured guest, which attests to the tenant’s\nverifier and then pulls, verifies and runs the image itself. Returns the container’s exit code, or 125 when it never\nran to its end.',
  operands: 'IMAGE [-- ARGS]',
  minOperands: 1,
  maxOperands: 1,
  options: {
    platform: { type: 'string', placeholder: 'tpm|none', help: 'what measures the guest', default: 'tpm' },
    initdata: {
      type: 'string',
      placeholder: 'FILE',
      help: 'configuration bound to the guest; or the options of `initdata create`:',
    },
    ...INITDATA_OPTIONS,
    ...STATE_OPTION,
    name: { type: 'string', placeholder: 'ID', help: 'id of the container (default: made from the image)' },
    container: { type: 'string', placeholder: 'NAME', help: 'name of the container in the policy (default: by image)' },
    publish: {
      type: 'string',
      short: 'p',
      placeholder: '[IP:]PORT:PORT',
      multiple: true,
      help: 'forward a port of this machine to the guest; 0 picks a free one',
    },
    'add-host': {
      type: 'string',
      placeholder: 'NAME:IP',
      multiple: true,
      help: 'address of a name in the guest; `host-gateway` is this machine',
    },
    env: {
      type: 'string',
      short: 'e',
      placeholder: 'KEY=VALUE',
      multiple: true,
      help: 'added environment (policy decides)',
    },
    user: { type: 'string', short: 'u', placeholder: 'USER', help: 'user (policy decides)' },
    tty: { type: 'boolean', short: 't', help: 'with a terminal (policy decides)' },
    interactive: { type: 'boolean', short: 'i', help: 'connect standard input (policy decides)' },
    memory: { type: 'string', placeholder: 'MIB', help: 'memory of the container', default: '512' },
    cpus: { type: 'string', placeholder: 'N', help: 'virtual CPUs; part of the measurement', default: '2' },
    scratch: {
      type: 'string',
      placeholder: 'MIB',
      help: 'encrypted scratch disk',
      default: String(DEFAULT_SCRATCH_MIB),
    },
    accel: { type: 'string', placeholder: 'auto|kvm|tcg', help: 'how the CPU is virtualised', default: 'auto' },
    firmware: {
      type: 'string',
      placeholder: 'FILE',
      help: 'firmware of platform tpm',
      default: '/usr/share/ovmf/OVMF.fd',
    },
    'tpm-ca': {
      type: 'string',
      placeholder: 'DIR',
      help: 'CA that signs software TPMs (default: in the state directory)',
    },
  },
  examples: [
    'caisson run --platform tpm --initdata initdata.toml --publish 8443:8443 registry.example/shop/web@sha256:<digest>',
    'caisson run --platform tpm --policy policy.yaml --verifier-url https://verifier.example:8443 --verifier-ca ca.pem IMAGE',
  ],
  run: async (invocation) => {
    try {
      return await runImage(invocation)
    } catch (error) {
      invocation.out.error(error)
      return EXIT_RUN_FAILED
    }
  },
}

async function runImage(invocation: Invocation): Promise<number> {
  const { out } = invocation
  const initdata = initdataOf(invocation)
  const image = invocation.operand(0)
  const wish = wishOf(invocation, image)
  await foresee(parseInitdata(initdata), wish)
  const choice = await chooseAccelerator(invocation.oneOf('accel', ['auto', 'kvm', 'tcg']))
  out.progress(`accelerator ${choice.accelerator}: ${choice.reason}`, { accelerator: choice.accelerator })
  const plan = await planOf(invocation, { image, initdata, accelerator: choice.accelerator })
  return await runPod({ plan, wish, stateRoot: stateRootOf(invocation), out })
}

function wishOf(invocation: Invocation, image: string): ContainerWish {
  return {
    image,
    name: invocation.string('container') ?? '',
    args: invocation.passthrough,
    env: invocation.strings('env'),
    user: invocation.string('user') ?? '',
    terminal: invocation.flag('tty'),
    stdin: invocation.flag('interactive'),
    hosts: invocation.strings('add-host'),
    publish: invocation.strings('publish'),
  }
}

function initdataOf(invocation: Invocation): Uint8Array {
  const file = invocation.string('initdata')
  if (file === undefined) return initdataFromOptions(invocation)
  if (invocation.string('policy') !== undefined) {
    throw new UsageError('ERR_USAGE', '--initdata and --policy exclude each other', {
      hint: 'The policy is inside initdata: give one of them.',
    })
  }
  return readUserFile(file, 'initdata')
}

async function planOf(
  invocation: Invocation,
  { image, initdata, accelerator }: { image: string; initdata: Uint8Array; accelerator: PodPlan['accelerator'] },
): Promise<PodPlan> {
  const platform = invocation.oneOf('platform', ['tpm', 'none'])
  const guest = await buildGuest({ onProgress: buildProgress(invocation.out) })
  const tpmCaDirectory = invocation.string('tpm-ca') ?? `${stateRootOf(invocation)}/tpm-ca`
  return {
    id: invocation.string('name') ?? defaultId(image),
    platform,
    accelerator,
    guest: {
      kernel: guest.kernelPath,
      root: guest.rootPath,
      commandLine: guest.manifest.cmdline[platform],
      ...(platform === 'tpm' ? { firmware: invocation.required('firmware') } : {}),
    },
    ...vmSize([{ memoryMib: invocation.integer('memory', 64, 1024 * 1024), cpus: invocation.integer('cpus', 1, 64) }]),
    scratchMib: invocation.integer('scratch', 64, 16 * 1024 * 1024),
    initdata,
    network: 'user',
    ...(platform === 'tpm' ? { tpmCa: await createTpmCa(tpmCaDirectory) } : {}),
    labels: { image },
  }
}

/** "registry.example/shop/web@sha256:…" → "web-1f3a9c" */
function defaultId(image: string): string {
  const [path = ''] = image.split('@')
  const last = path.slice(path.lastIndexOf('/') + 1).split(':')[0] ?? ''
  const name = last
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
  return `${name.slice(0, 24) || 'pod'}-${randomBytes(3).toString('hex')}`
}
