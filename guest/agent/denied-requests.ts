/** The request that a denial is about, for whoever explains it to the tenant. */
import type { ContainerRequest } from '#policies/requests'
import { DeniedError } from '#protocol/errors'

const requests = new WeakMap<Error, ContainerRequest>()

/** What `judge` returns; a denial that it throws is remembered with its request, for as long as somebody has the denial. */
export function judging<T>(request: ContainerRequest, judge: (request: ContainerRequest) => T): T {
  try {
    return judge(request)
  } catch (error) {
    if (error instanceof DeniedError) requests.set(error, request)
    throw error
  }
}

export function deniedRequest(error: unknown): ContainerRequest | undefined {
  return error instanceof Error ? requests.get(error) : undefined
}
