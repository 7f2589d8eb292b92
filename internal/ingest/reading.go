package ingest

import "felhom.eu/hub/internal/hub"

// readerRate is how often a second the keys of one owner may read, with bursts of
// twice that: a script that polls needs less.
const readerRate = 10

var errHostReads = &hub.Error{Code: hub.Forbidden, Reason: "host_key",
	Message: "a host's key may not read"}

// AdmitReader says whether a key may read, and so often, and of which customer alone;
// "" for a global key, which may read of all.
func (a *Acceptor) AdmitReader(key hub.Key) (customer string, err error) {
	switch key.Owner.Kind {
	case hub.OwnerHost:
		return "", errHostReads
	case hub.OwnerCustomer:
		customer = key.Owner.Name
		if _, ok := a.fleets.Current().Customer(customer); !ok {
			return "", unauthorized("unknown_key")
		}
	}
	if wait, ok := a.readers.allow(key.Owner.String(), a.now()); !ok {
		return "", &hub.Error{Code: hub.RateLimited, Reason: "reader_rate", Message: "this key's owner reads too often", Retry: wait}
	}
	return customer, nil
}
