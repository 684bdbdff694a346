import { mountImageFolder } from '#image/node/mount-folder'
import type { CommandSpec } from '../command.ts'

export const imageMount: CommandSpec = {
  path: 'image mount',
  summary:
    'Mounts a pulled image read-only. Every byte is held to the verity roots first, without device-mapper; what is ' +
    'changed in the folder afterwards is not noticed. Unmount with umount.',
  operands: 'DIR TARGET',
  minOperands: 2,
  maxOperands: 2,
  options: {},
  examples: ['caisson image mount web /mnt/web'],
  run: async (invocation) => {
    const [folder, target] = [invocation.operand(0), invocation.operand(1)]
    const onChecked = (path: string): void => invocation.out.progress(`verified ${path}`, { path })
    const { reference, manifestDigest } = await mountImageFolder({ folder, target, onChecked })
    invocation.out.result({ reference, manifestDigest, target }, `${manifestDigest} at ${target}`)
    return 0
  },
}
