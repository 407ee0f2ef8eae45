/**
 * Fixed-layout little-endian structures, declared once and used in place.
 *
 * A declaration is a table of byte offsets: `view.getUint32(at + FuseInHeader.opcode, true)`.
 * Nothing is decoded and nothing is allocated on the data path; `dumpStruct` decodes a whole
 * structure for traces and tests.
 *
 * Every structure of FUSE, virtio and vhost-user used here has natural alignment and explicit
 * padding, so an offset that is not a multiple of the field's alignment is a typing error in the
 * table: it throws at load time, as does a wrong total size.
 */

/** Field types: unsigned and signed integers, little endian, and fixed byte arrays `bytes:N`. */
export type FieldType = 'u8' | 'u16' | 'u32' | 'u64' | 'i32' | 'i64' | `bytes:${number}`

type Fields = Record<string, FieldType>

/** Offsets of the fields in bytes, plus `SIZE`, the size of the whole structure in bytes. */
export type Struct<F extends Fields> = { readonly [K in keyof F]: number } & { readonly SIZE: number }

interface Declaration {
  name: string
  fields: [name: string, type: FieldType, offset: number][]
}

const declarations = new WeakMap<object, Declaration>()

function sizeOf(type: FieldType): number {
  switch (type) {
    case 'u8': return 1
    case 'u16': return 2
    case 'u32': case 'i32': return 4
    case 'u64': case 'i64': return 8
    default: return Number(type.slice('bytes:'.length))
  }
}

interface Options {
  /** The declaration is `__attribute__((packed))` in its source: fields need no alignment. */
  packed?: boolean
}

/**
 * Declares a structure.
 *
 * @param name the name in the C header, for error messages and dumps
 * @param size its size in bytes, checked
 * @throws TypeError when a field is misaligned or the sizes do not add up
 */
export function defineStruct<const F extends Fields>(name: string, size: number, fields: F, options: Options = {}): Struct<F> {
  const offsets: Record<string, number> = { SIZE: size }
  const declaration: Declaration = { name, fields: [] }
  let at = 0
  for (const [field, type] of Object.entries(fields)) {
    const bytes = sizeOf(type)
    const alignment = options.packed || type.startsWith('bytes:') ? 1 : bytes
    if (at % alignment !== 0) throw new TypeError(`${name}.${field}: offset ${at} is not a multiple of ${alignment}`)
    offsets[field] = at
    declaration.fields.push([field, type, at])
    at += bytes
  }
  if (at !== size) throw new TypeError(`${name}: fields take ${at} bytes, declared ${size}`)
  declarations.set(offsets, declaration)
  return Object.freeze(offsets) as Struct<F>
}

/** The C name of a structure declared with `defineStruct`. */
export function structName(struct: object): string {
  return declarations.get(struct)?.name ?? '?'
}

/** Decodes a structure into a plain object; 64-bit fields become BigInt, byte arrays hex. Slow. */
export function dumpStruct(struct: object, view: DataView, at = 0): Record<string, number | bigint | string> {
  const declaration = declarations.get(struct)
  if (!declaration) throw new TypeError('not a structure')
  const out: Record<string, number | bigint | string> = {}
  for (const [field, type, offset] of declaration.fields) {
    const p = at + offset
    switch (type) {
      case 'u8': out[field] = view.getUint8(p); break
      case 'u16': out[field] = view.getUint16(p, true); break
      case 'u32': out[field] = view.getUint32(p, true); break
      case 'i32': out[field] = view.getInt32(p, true); break
      case 'u64': out[field] = view.getBigUint64(p, true); break
      case 'i64': out[field] = view.getBigInt64(p, true); break
      default: out[field] = Buffer.from(view.buffer, view.byteOffset + p, sizeOf(type)).toString('hex')
    }
  }
  return out
}
