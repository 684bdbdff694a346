import { GrpcClient } from '#host-shim/containerd/grpc'
import { importPlaceholder, PLACEHOLDER_IMAGE } from '#host-shim/containerd/placeholder'
import { type ContainerdVersion, isAtLeast } from '#host-shim/install/containerd-version'
import { type InstallOptions, type InstallPlan, install, planInstall } from '#host-shim/install/install'
import { SERVICE } from '#host-shim/install/node-layout'
import { daemonWords } from '#host-shim/install/service'
import { checkPatterns } from '#host-shim/snapshotter/guest-references'
import { CAISSON_SHIM } from '#native/host/index'
import { UsageError } from '#protocol/errors'
import { chooseAccelerator } from '#vmm/qemu/accelerator'
import type { CommandSpec, Invocation } from '../command.ts'
import { CONTAINERD_OPTIONS, caissonWords, containerdOf, layoutOf, NODE_OPTIONS } from '../node-options.ts'
import { servesRoot, systemctl } from '../systemd.ts'

export const nodeInstall: CommandSpec = {
  path: 'node install',
  summary:
    'Makes this machine a node for confidential pods: programs, service, containerd configuration and RuntimeClass. `caisson node uninstall` leaves it as it was.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {
    ...NODE_OPTIONS,
    ...CONTAINERD_OPTIONS,
    service: {
      type: 'string',
      placeholder: 'auto|systemd|none',
      help: 'who starts the daemon; none: your own service manager',
      default: 'auto',
    },
    platform: { type: 'string', placeholder: 'tpm|none', help: 'of pods that do not say', default: 'tpm' },
    accel: { type: 'string', placeholder: 'auto|kvm|tcg', help: 'how the CPU is virtualised', default: 'auto' },
    'guest-image': {
      type: 'string',
      placeholder: 'REPOSITORY',
      multiple: true,
      help: 'images whose layers only guests fetch: a registry, a path or a repository; * for all (default: all of pods of Caisson; with containerd 1.6 none, since it cannot tell)',
    },
    'dry-run': { type: 'boolean', help: 'print what would change, and change nothing' },
    restart: { type: 'boolean', help: 'start the service and restart containerd (systemd); pods that run go on' },
  },
  examples: ['caisson node install --dry-run', 'caisson node install --restart && caisson node check'],
  run: async (invocation) => {
    const { out } = invocation
    const options = await installOptions(invocation)
    const plan = planInstall(options)
    const { layout, containerd } = options
    const dryRun = invocation.flag('dry-run')
    if (invocation.flag('restart') && !dryRun) checkRestart(options)
    if (!dryRun) await install(options, plan)
    if (!dryRun && invocation.flag('restart')) await restart(plan)
    const isImported = !dryRun && (await importNow(layout.containerdSocket))
    const next = dryRun || invocation.flag('restart') ? [] : nextSteps(options)
    out.result(
      {
        changed: !dryRun && plan.changes.length > 0,
        containerd: containerd.text,
        service: options.service,
        changes: plan.changes,
        runtimeClass: layout.runtimeClass,
        sealedImage: { name: PLACEHOLDER_IMAGE, isImported },
        next,
      },
      [report(plan, dryRun), ...next.map((step) => `next: ${step}`)].join('\n'),
    )
    return 0
  },
}

async function installOptions(invocation: Invocation): Promise<InstallOptions> {
  const layout = layoutOf(invocation)
  const { version, program } = await containerdOf(invocation, layout)
  const cacheHome = process.env.XDG_CACHE_HOME
  const accel = invocation.oneOf('accel', ['auto', 'kvm', 'tcg'])
  const choice = await chooseAccelerator(accel)
  const service = invocation.oneOf('service', ['auto', 'systemd', 'none'])
  return {
    layout,
    containerd: version,
    containerdProgram: program,
    service: service === 'auto' ? (servesRoot(layout.root) ? 'systemd' : 'none') : service,
    daemon: {
      platform: invocation.oneOf('platform', ['tpm', 'none']),
      accelerator: accel,
      guestImages: guestImagesOf(invocation, version),
    },
    accelerator: choice.accelerator,
    shimProgram: CAISSON_SHIM,
    caisson: caissonWords(),
    cacheHome: cacheHome?.startsWith('/') === true ? cacheHome : undefined,
  }
}

/** From 1.7 on only images of our pods reach the snapshotter; 1.6 sends all of them there. */
function guestImagesOf(invocation: Invocation, version: ContainerdVersion): readonly string[] {
  const given = invocation.strings('guest-image')
  checkPatterns(given)
  return given.length === 0 && isAtLeast(version, 1, 7) ? ['*'] : given
}

function report({ changes }: InstallPlan, dryRun: boolean): string {
  if (changes.length === 0) return 'nothing to change: everything is installed'
  const parts = changes.map(({ path, diff }) => (dryRun ? `${path}\n${diff}\n` : `wrote ${path}`))
  return parts.join('\n')
}

/** The image that stands for sealed ones. Where containerd does not answer yet, the daemon imports it when it does. */
async function importNow(address: string): Promise<boolean> {
  using containerd = new GrpcClient(address)
  return await importPlaceholder(containerd).then(
    () => true,
    () => false,
  )
}

function nextSteps({ layout, service, daemon }: InstallOptions): readonly string[] {
  return [
    service === 'systemd'
      ? `systemctl daemon-reload && systemctl start ${SERVICE}`
      : `start this at boot, before containerd: ${daemonWords(layout, daemon).join(' ')}`,
    'restart containerd',
    `kubectl apply -f ${layout.runtimeClass}`,
    'caisson node check',
  ]
}

function checkRestart({ layout, service }: InstallOptions): void {
  if (service === 'systemd' && layout.root === '/') return
  throw new UsageError('ERR_USAGE', '--restart needs systemd, and a node that is no private root', {
    hint: 'Restart containerd yourself; without --restart the steps are printed.',
  })
}

/** An installation that changed nothing disturbs nobody. */
async function restart({ changes }: InstallPlan): Promise<void> {
  const steps =
    changes.length === 0
      ? [['start', SERVICE]]
      : [['daemon-reload'], ['restart', SERVICE], ['restart', 'containerd.service']]
  for (const words of steps) await systemctl(...words)
}
