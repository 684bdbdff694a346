import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { buildGuest } from '#guest/build/build'
import type { GuestImage } from '#guest/build/guest-image'
import { SBOM_FILE } from '#guest/build/sbom'
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
  options: { sbom: { type: 'boolean', help: 'print the list of packages and files as SPDX 2.3 (JSON) instead' } },
  examples: ['caisson guest inspect --json', 'caisson guest inspect --sbom > guest.spdx.json'],
  run: async (invocation) => {
    const guest = await buildGuest({ onProgress: buildProgress(invocation.out) })
    if (invocation.flag('sbom')) invocation.out.write(await readFile(join(guest.directory, SBOM_FILE)))
    else printGuest(invocation, guest)
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
