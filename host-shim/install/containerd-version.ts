/** Which containerd a node runs, and what that means for its configuration. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { MalformedError, UnavailableError } from '#protocol/errors'

export interface ContainerdVersion {
  readonly major: number
  readonly minor: number
  /** As the program prints it: "1.6.20~ds1". */
  readonly text: string
}

const TIMEOUT_MS = 20_000

/** Output of `containerd --version`: "containerd <package> <version> <revision>". @throws MalformedError ERR_CONTAINERD_VERSION */
export function parseContainerdVersion(output: string): ContainerdVersion {
  const [program, , text = ''] = output.slice(0, 1024).trim().split(/\s+/)
  const [, major, minor] = /^v?([0-9]{1,3})\.([0-9]{1,3})(?:\.[0-9]|[^0-9.]|$)/.exec(text) ?? []
  if (program !== 'containerd' || major === undefined || minor === undefined) {
    throw new MalformedError(
      'ERR_CONTAINERD_VERSION',
      `containerd --version printed ${JSON.stringify(output.slice(0, 100))}`,
      {
        hint: 'Say which version the node runs: --containerd 1.6, 1.7 or 2',
      },
    )
  }
  return { major: Number(major), minor: Number(minor), text }
}

/** A version that the operator named. "2" stands for the least that is known of 2.x. */
export function namedVersion(name: '1.6' | '1.7' | '2'): ContainerdVersion {
  const [major = 0, minor = 0] = name.split('.').map(Number)
  return { major, minor, text: name }
}

/** @throws UnavailableError ERR_CONTAINERD_MISSING, MalformedError ERR_CONTAINERD_VERSION */
export async function askContainerdVersion(program: string): Promise<ContainerdVersion> {
  const { stdout } = await promisify(execFile)(program, ['--version'], { timeout: TIMEOUT_MS }).catch(
    (cause: unknown) => {
      throw new UnavailableError('ERR_CONTAINERD_MISSING', `${program} cannot be run`, {
        hint: 'Install containerd 1.6 or later, or say which version the node runs: --containerd 1.6, 1.7 or 2',
        cause,
      })
    },
  )
  return parseContainerdVersion(stdout)
}

export function isAtLeast(version: ContainerdVersion, major: number, minor: number): boolean {
  return version.major > major || (version.major === major && version.minor >= minor)
}
