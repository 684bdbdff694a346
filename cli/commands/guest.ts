import { buildGuest } from '#guest/build/build'
import type { GuestImage } from '#guest/build/guest-image'
import { buildProgress } from '../build-progress.ts'
import type { CommandSpec, Invocation } from '../command.ts'

export const guestBuild: CommandSpec = {
  path: 'guest build',
  summary: 'Builds the guest kernel and root file system, or finds them in the cache.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: { force: { type: 'boolean', help: 'build again although the cache has it' } },
  examples: ['caisson guest build'],
  run: async (invocation) => {
    const guest = await buildGuest({
      onProgress: buildProgress(invocation.out),
      force: invocation.flag('force'),
    })
    printGuest(invocation, guest)
    return 0
  },
}

export const guestInspect: CommandSpec = {
  path: 'guest inspect',
  summary: 'Prints what the guest image consists of: kernel, root hash, command lines, packages.',
  operands: '',
  minOperands: 0,
  maxOperands: 0,
  options: {},
  examples: ['caisson guest inspect --json'],
  run: async (invocation) => {
    printGuest(invocation, await buildGuest({}))
    return 0
  },
}

function printGuest(invocation: Invocation, guest: GuestImage): void {
  const { kernel, root, cmdline } = guest.manifest
  invocation.out.result(
    { directory: guest.directory, ...guest.manifest },
    [
      guest.directory,
      `kernel     ${kernel.size} bytes  sha256:${kernel.sha256}`,
      `root       ${root.size} bytes  root hash ${root.rootHash}`,
      `tpm        ${cmdline.tpm}`,
      `none       ${cmdline.none}`,
    ].join('\n'),
  )
}
