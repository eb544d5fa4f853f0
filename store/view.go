package store

import (
	"bytes"
	"iter"
	"sync"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// View is all that is declared at one revision. It never changes, and neither
// may its resources: they are shared by everyone who looks.
type View struct {
	revision  uint64
	resources *iradix.Tree[*weirv1.Resource]
	// referrers holds, for each thing referred to, those who do (key.go).
	referrers *iradix.Tree[resource.Ref]
	values    *iradix.Tree[[]byte]
	blobs     *iradix.Tree[blob]
	// leases are what is granted of limits, at the time of the clock (lease.go).
	leases *iradix.Tree[*weirv1.LeaseRecord]
	clock  *weirv1.LeaseClock

	// listing is made when it is first asked for, once for all views of a
	// revision.
	listing *listing
}

type listing struct {
	once       sync.Once
	everything []*weirv1.Resource
}

func emptyView() *View {
	return &View{
		resources: iradix.New[*weirv1.Resource](),
		referrers: iradix.New[resource.Ref](),
		values:    iradix.New[[]byte](),
		blobs:     iradix.New[blob](),
		leases:    iradix.New[*weirv1.LeaseRecord](),
		listing:   new(listing),
	}
}

// Revision is that of the last change.
func (v *View) Revision() uint64 { return v.revision }

// Len counts the resources.
func (v *View) Len() int { return v.resources.Len() }

// Get returns a resource, or false.
func (v *View) Get(ref resource.Ref) (*weirv1.Resource, bool) {
	return v.resources.Get(resourceKey(ref))
}

// All yields every resource by kind, tenant and name.
func (v *View) All() iter.Seq[*weirv1.Resource] {
	return func(yield func(*weirv1.Resource) bool) {
		for _, r := range v.listed() {
			if !yield(r) {
				return
			}
		}
	}
}

func (v *View) listed() []*weirv1.Resource {
	l := v.listing
	l.once.Do(func() {
		l.everything = make([]*weirv1.Resource, 0, v.resources.Len())
		for _, r := range scan(v.resources.Root(), nil, nil) {
			l.everything = append(l.everything, r)
		}
	})
	return l.everything
}

// AllTenants asks List for every tenant's.
const AllTenants = "*"

// List returns at most limit resources of a kind ("": every kind) and a tenant
// ([AllTenants]: every tenant) that come after a resource (the zero Ref: from
// the start), by kind, tenant and name, and whether there are more.
func (v *View) List(kind, tenant string, after resource.Ref, limit int) (page []*weirv1.Resource, more bool) {
	var prefix, from []byte
	if kind != "" {
		prefix = []byte(kind + separator)
		if tenant != AllTenants {
			prefix = append(prefix, tenant+separator...)
		}
	}
	if after != (resource.Ref{}) {
		// The least key that is greater.
		from = append(resourceKey(after), 0)
	}
	for _, r := range scan(v.resources.Root(), prefix, from) {
		if tenant != AllTenants && resource.Of(r).Tenant != tenant {
			continue
		}
		if len(page) == limit {
			return page, true
		}
		page = append(page, r)
	}
	return page, false
}

// Counts says how many resources there are of each kind.
func (v *View) Counts() map[string]uint64 {
	counts := map[string]uint64{}
	for r := range v.All() {
		counts[resource.KindOf(r)]++
	}
	return counts
}

// Referrers yields what refers to a resource, by kind, tenant and name.
func (v *View) Referrers(to resource.Ref) iter.Seq[resource.Ref] {
	return func(yield func(resource.Ref) bool) {
		for _, from := range scan(v.referrers.Root(), referrersPrefix(to), nil) {
			if !yield(from) {
				return
			}
		}
	}
}

// Value returns what PutValue or ChangeValues stored. It must not be changed.
func (v *View) Value(table, key string) ([]byte, bool) {
	return v.values.Get(valueKey(table, key))
}

// Values yields a table's keys and values in order.
func (v *View) Values(table string) iter.Seq2[string, []byte] {
	prefix := []byte(table + separator)
	return func(yield func(string, []byte) bool) {
		for key, value := range scan(v.values.Root(), prefix, nil) {
			if !yield(string(key[len(prefix):]), value) {
				return
			}
		}
	}
}

// SameValues tells whether a view has the same values of all tables, at the cost of a look.
// What is told apart may be the same all the same.
func (v *View) SameValues(as *View) bool { return as != nil && v.values.Root() == as.values.Root() }

// BlobSize returns the size of a blob that is stored whole, or false.
func (v *View) BlobSize(digest string) (uint64, bool) {
	b, ok := v.blobs.Get([]byte(digest))
	return b.size, ok && b.whole()
}

// scan yields the entries below root whose keys begin with prefix and are not
// less than from, in order.
func scan[T any](root *iradix.Node[T], prefix, from []byte) iter.Seq2[[]byte, T] {
	return func(yield func([]byte, T) bool) {
		if bytes.Compare(from, prefix) < 0 {
			from = prefix
		}
		it := root.Iterator()
		it.SeekLowerBound(from)
		for key, value, ok := it.Next(); ok; key, value, ok = it.Next() {
			if !bytes.HasPrefix(key, prefix) || !yield(key, value) {
				return
			}
		}
	}
}
