/** Every operation of the fuzzer, by name. */
import { attributeOperations } from './attribute-operations.js'
import { fileOperations } from './file-operations.js'
import { nameOperations } from './name-operations.js'
import type { Operation } from './operation.js'

export const operations: Readonly<Record<string, Operation>> = { ...fileOperations, ...nameOperations, ...attributeOperations }
