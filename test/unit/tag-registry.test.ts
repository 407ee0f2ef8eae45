/** The devices of a process by tag. */
import t from 'tap'
import { TagRegistry } from '../../lib/driver/tag-registry.js'

t.test('add, find, remove', async t => {
  const registry = new TagRegistry<object>()
  const [a, b] = [{}, {}]
  registry.add('one', a)
  registry.add('two', b)
  t.equal(registry.find('one'), a)
  t.equal(registry.find('two'), b)
  t.equal(registry.find('three'), undefined)
  t.throws(() => registry.add('one', b), { code: 'EEXIST', message: 'tag "one" is in use' })
  t.equal(registry.find('one'), a, 'a refused add changes nothing')
  registry.remove('one', b)
  t.equal(registry.find('one'), a, 'only the owner of a tag gives it back')
  registry.remove('one', a)
  t.equal(registry.find('one'), undefined)
  registry.remove('one', a)
  registry.add('one', b)
  t.equal(registry.find('one'), b, 'a tag can be used again')
})

t.test('tags that are none', async t => {
  const registry = new TagRegistry<object>()
  t.throws(() => registry.add('', {}), { code: 'EINVAL' })
  t.throws(() => registry.add('a\nb', {}), { code: 'EINVAL' })
})
