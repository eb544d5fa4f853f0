package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// UsageQuery says which usage, and how it is added up.
type UsageQuery struct {
	// Tenant, or [AllTenants]. App, Subscription, Api: empty for all.
	Tenant, App, Subscription, Api string
	// Since and Until are hours since 1970, UTC; until is not counted itself, and 0
	// stands for the end.
	Since, Until int64
	// Hours is how many hours make a row, from the epoch on; 0: all of them.
	Hours int64
	// After is the last row of the page before; the zero one: from the start.
	After UsageRow
	Limit int
}

// UsageRow is what was counted of one kind of answer in one period.
type UsageRow struct {
	Hour                                      int64 // when the period begins; 0 for all of the time
	Tenant, App, Subscription, Api, Operation string
	Class                                     uint8
	Count                                     uint64
}

func (r UsageRow) compare(o UsageRow) int {
	return cmp.Or(cmp.Compare(r.Hour, o.Hour), strings.Compare(r.Tenant, o.Tenant), strings.Compare(r.App, o.App),
		strings.Compare(r.Subscription, o.Subscription), strings.Compare(r.Api, o.Api),
		strings.Compare(r.Operation, o.Operation), cmp.Compare(r.Class, o.Class))
}

// Usage returns a page of what was counted, by time, tenant, app, subscription, api,
// operation and class, and whether there is more.
func (s *Store) Usage(q UsageQuery) (page []UsageRow, more bool, err error) {
	s.files.RLock()
	defer s.files.RUnlock()
	err = s.db.View(func(tx *bolt.Tx) (err error) {
		l := usageLister{query: q, cursor: tx.Bucket(bucketUsage).Cursor(), sums: map[UsageRow]uint64{}}
		page, more, err = l.list()
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("read usage: %w", err)
	}
	return page, more, nil
}

// usageLister adds up one period after the other.
type usageLister struct {
	query  UsageQuery
	cursor *bolt.Cursor
	period int64
	sums   map[UsageRow]uint64 // of the period; their Count is 0
	page   []UsageRow
}

func (l *usageLister) list() (page []UsageRow, more bool, err error) {
	if l.query.Until == 0 {
		l.query.Until = math.MaxInt64
	}
	hour := max(l.query.Since, l.query.After.Hour, 0)
	for more := true; more && hour < l.query.Until; {
		if begins := l.periodOf(hour); begins != l.period {
			if l.close() {
				break
			}
			l.period = begins
		}
		if hour, more, err = l.readHour(hour); err != nil {
			return nil, false, err
		}
	}
	l.close()
	if len(l.page) > l.query.Limit {
		return l.page[:l.query.Limit], true, nil
	}
	return l.page, false, nil
}

func (l *usageLister) periodOf(hour int64) int64 {
	if l.query.Hours == 0 {
		return 0
	}
	return hour / l.query.Hours * l.query.Hours
}

// readHour adds the rows of an hour, and returns the next one that has any.
func (l *usageLister) readHour(hour int64) (next int64, more bool, err error) {
	prefix := l.prefix(hour)
	key, value := l.cursor.Seek(prefix)
	for ; bytes.HasPrefix(key, prefix); key, value = l.cursor.Next() {
		row, err := readRow(key)
		if err != nil || len(value) != 8 {
			return 0, false, fmt.Errorf("row %q is damaged", key)
		}
		if l.query.Api != "" && row.Api != l.query.Api {
			continue
		}
		row.Hour = l.period
		l.sums[row] += binary.BigEndian.Uint64(value)
	}
	if key == nil {
		return 0, false, nil
	}
	// What follows may be others' of the same hour.
	return max(hour+1, int64(binary.BigEndian.Uint64(key))), true, nil
}

func (l *usageLister) prefix(hour int64) []byte {
	key := binary.BigEndian.AppendUint64(nil, uint64(hour))
	if l.query.Tenant == AllTenants {
		return key
	}
	for _, part := range []string{l.query.Tenant, l.query.App, l.query.Subscription} {
		if part == "" {
			break
		}
		key = append(append(key, part...), 0)
	}
	return key
}

// close puts what was added up into the page; full: there is no need for more.
func (l *usageLister) close() (full bool) {
	from := len(l.page)
	for row, n := range l.sums {
		matches := (l.query.App == "" || l.query.App == row.App) && (l.query.Subscription == "" || l.query.Subscription == row.Subscription)
		if matches && row.compare(l.query.After) > 0 {
			row.Count = n
			l.page = append(l.page, row)
		}
	}
	slices.SortFunc(l.page[from:], UsageRow.compare)
	clear(l.sums)
	return len(l.page) > l.query.Limit
}

func readRow(key []byte) (row UsageRow, err error) {
	if len(key) < 10 {
		return row, fmt.Errorf("%d bytes are no row", len(key))
	}
	texts := strings.Split(string(key[8:len(key)-2]), separator)
	if len(texts) != 5 {
		return row, fmt.Errorf("%d texts are no row", len(texts))
	}
	return UsageRow{Hour: int64(binary.BigEndian.Uint64(key)), Tenant: texts[0], App: texts[1], Subscription: texts[2],
		Api: texts[3], Operation: texts[4], Class: key[len(key)-1]}, nil
}
