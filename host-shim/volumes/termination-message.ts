/** A container's last words, in the file that the kubelet reads. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { isTerminationMessage } from './kubelet-volume.ts'

/**
 * @param mounts of the container; without the kubelet's file nobody asks for the message
 * @param message what the guest let out
 */
export async function writeTerminationMessage(
  mounts: readonly { readonly source: string }[],
  message: Uint8Array,
): Promise<void> {
  const file = mounts.find(({ source }) => isTerminationMessage(source))
  if (file === undefined || message.byteLength === 0) return
  await using handle = await open(file.source, constants.O_WRONLY | constants.O_TRUNC | constants.O_NOFOLLOW)
  await handle.writeFile(message)
}
