/** systemd of this machine, for commands that change its services. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import { UnavailableError } from '#protocol/errors'

/** sd_booted(3). systemd reads nothing below a private root. */
export function servesRoot(root: string): boolean {
  return root === '/' && existsSync('/run/systemd/system')
}

/** @throws UnavailableError ERR_SERVICE */
export async function systemctl(...words: readonly string[]): Promise<void> {
  await promisify(execFile)('systemctl', [...words]).catch((cause: unknown) => {
    throw new UnavailableError('ERR_SERVICE', `systemctl ${words.join(' ')} failed`, {
      hint: `Look at: journalctl -u ${words.at(-1)}. What files there are to change is changed or recorded; run the command again`,
      cause,
    })
  })
}
