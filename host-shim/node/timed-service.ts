/** The task service with the time that each request takes. */
import type { Histogram } from './metrics.ts'
import type { TaskService } from './task-service.ts'

/** Lasts as long as a process does, so its time says nothing. */
const UNTIMED: ReadonlySet<string> = new Set(['wait'])

export function timedService(service: TaskService, rpc: Histogram): TaskService {
  return new Proxy(service, {
    get: (target, name) => {
      const method: unknown = Reflect.get(target, name)
      if (typeof method !== 'function' || typeof name !== 'string' || UNTIMED.has(name)) return method
      return (...words: unknown[]) =>
        rpc.time({ method: name }, () => Reflect.apply(method, target, words) as Promise<unknown>)
    },
  })
}
