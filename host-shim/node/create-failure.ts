/** What is told of a container that could not be made: the guest's code, and how far it was with the image. */
import { RpcError } from '#protocol/ttrpc/status'
import type { PullState } from './pod-progress.ts'
import { taskStatus } from './task-errors.ts'

const MIB = 1024 * 1024

export function withPull(error: unknown, pull: PullState | undefined): unknown {
  if (pull === undefined) return error
  const { code, message } = taskStatus(error)
  return new RpcError('ERR_RPC_STATUS', { code, message: `${message}; ${pullText(pull)}` }, { cause: error })
}

/** "its image was pulled as far as 12.0 of 40.5 MiB, 3 layers" */
export function pullText({ layers, doneBytes, totalBytes, done }: PullState): string {
  const mib = (bytes: number): string => (bytes / MIB).toFixed(1)
  const size = `${mib(totalBytes)} MiB, ${layers} ${layers === 1 ? 'layer' : 'layers'}`
  return done ? `its image was pulled whole: ${size}` : `its image was pulled as far as ${mib(doneBytes)} of ${size}`
}
