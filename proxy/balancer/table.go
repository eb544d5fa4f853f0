package balancer

import "math"

// table is what a key leads to a place of: a [Ring] or a [Maglev].
type table interface {
	size() int            // how many places it has
	place(key uint64) int // where a key leads
	at(place int) int     // which endpoint is there; places go round
	weighed() []uint32
}

// wanted is which endpoint will do.
type wanted struct {
	tried Tried
	bound *Bounded // nil: none
	sum   float64  // of what is under way, with this request
}

func (w wanted) will(i int) bool {
	return !w.tried.Has(i) && (w.bound == nil || w.bound.bears(i, w.sum))
}

// nearest is how many places of a table are looked at before the endpoints are
// gone through one by one.
const nearest = 256

// find returns the first endpoint from the key's place on that will do. When
// none does it is the one at that place.
func find(t table, key uint64, w wanted) int {
	if t.size() == 0 {
		return None
	}
	from := t.place(key)
	first := t.at(from)
	if w.will(first) {
		return first
	}
	for step := 1; step < min(t.size(), nearest); step++ {
		if i := t.at(from + step); i != first && w.will(i) {
			return i
		}
	}
	weights := t.weighed()
	for step := 1; step < len(weights); step++ {
		if i := (first + step) % len(weights); weights[i] > 0 && w.will(i) {
			return i
		}
	}
	return first
}

// Bounded keeps what a hash leads to within bounds (Mirrokni, Thorup and
// Zadimoghaddam, consistent hashing with bounded loads): an endpoint that has
// its share of what is under way, times a factor, is passed over for the next.
type Bounded struct {
	table  table
	total  float64
	factor float64
	loads  Loads
}

// NewBounded bounds a [Ring] or a [Maglev]; factor is at least 1.
func NewBounded(of table, factor float64, loads Loads) *Bounded {
	b := &Bounded{table: of, factor: factor, loads: loads}
	for _, w := range of.weighed() {
		b.total += float64(w)
	}
	return b
}

// Pick implements [Picker].
func (b *Bounded) Pick(key uint64, tried Tried) int {
	sum := int64(1)
	for i := range b.table.weighed() {
		sum += b.loads.InFlight(i)
	}
	i := find(b.table, key, wanted{tried: tried, bound: b, sum: float64(sum)})
	if i != None && tried.Has(i) {
		return find(b.table, key, wanted{tried: tried}) // a busy one is better than a broken one
	}
	return i
}

// bears: with one more, the endpoint has no more than it may.
func (b *Bounded) bears(i int, sum float64) bool {
	share := float64(b.table.weighed()[i]) / b.total
	return float64(b.loads.InFlight(i)+1) <= math.Ceil(b.factor*share*sum)
}
