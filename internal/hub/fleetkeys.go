package hub

import "iter"

// KnownKeys yields every key that can be found by its digest, in no order.
func (f *Fleet) KnownKeys() iter.Seq[Key] {
	return func(yield func(Key) bool) {
		for _, k := range f.keys {
			if !yield(*k) {
				return
			}
		}
	}
}

// KeysOf returns the keys of an owner as the fleet names them, those of retired
// hosts and those without a digest included; false where there is no such owner.
func (f *Fleet) KeysOf(owner Owner) ([]Key, bool) {
	switch owner.Kind {
	case OwnerHost:
		if h, ok := f.hosts[owner.Name]; ok {
			return h.Keys, true
		}
	case OwnerCustomer:
		if c, ok := f.customers[owner.Name]; ok {
			return c.Keys, true
		}
	case OwnerFleet:
		return f.spec.Keys, true
	}
	return nil, false
}
