package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	bolt "go.etcd.io/bbolt"

	weirv1 "github.com/weirmesh/weir/proto/weir/v1"
	"github.com/weirmesh/weir/resource"
)

// UsageRetention is how long usage is kept.
const UsageRetention = 400 * 24 * time.Hour

const (
	// An epoch is forgotten a day after its end, by when nothing that was sent of it is
	// still under way; one whose node says no more, with what was counted then.
	endedEpoch  = 24 * time.Hour
	silentEpoch = UsageRetention
	// How many are looked at, and how many rows are dropped, with each command.
	sweptAtOnce   = 32
	droppedAtOnce = 1024

	// Bounds of a report: of its segments, of a segment's counts, of one count, and of
	// how many segments may be ahead of the oldest that has not come.
	maxSegments      = 1024
	maxSegmentCounts = 8192
	maxCount         = 1 << 48
	maxAhead         = 4096

	epochSize = 16

	latestHour = 1 << 40 // beyond any, and far from where numbers end
)

// applyUsage adds the segments that were not added before.
func (d *draft) applyUsage(c *weirv1.ApplyUsage, now time.Time) (*RefusedError, error) {
	if refused := checkUsage(c); refused != nil {
		return refused, nil
	}
	tx, err := d.file()
	if err != nil {
		return nil, err
	}
	u := usageWriter{rows: tx.Bucket(bucketUsage), reported: tx.Bucket(bucketReported), now: now, hour: hourOf(now)}
	if refused, err := u.checkAhead(c); refused != nil || err != nil {
		return refused, err
	}
	for _, s := range c.GetSegments() {
		if err := u.add(c.GetNode(), s); err != nil {
			return nil, err
		}
	}
	for _, epoch := range c.GetEnded() {
		if err := u.end(reportedKey(c.GetNode(), epoch)); err != nil {
			return nil, err
		}
	}
	// What is old goes by two clocks, the member's that proposes and the proxy's that has
	// counted: one that jumps ahead must not make anyone forget.
	newest := newestHour(c)
	if newest < 0 {
		return nil, nil
	}
	u.hour = min(u.hour, newest)
	if limit := time.Unix((newest+1)*3600, 0); u.now.After(limit) {
		u.now = limit
	}
	if err := u.dropRows(); err != nil {
		return nil, err
	}
	return nil, u.sweep(tx.Bucket(bucketMeta))
}

// newestHour is that of what was counted last; -1: nothing was.
func newestHour(c *weirv1.ApplyUsage) int64 {
	newest := int64(-1)
	for _, s := range c.GetSegments() {
		for _, count := range s.GetCounts() {
			newest = max(newest, min(count.GetHour(), latestHour))
		}
	}
	return newest
}

// checkUsage says what is wrong with a report, whatever the state.
func checkUsage(c *weirv1.ApplyUsage) *RefusedError {
	ref := usageRef(c)
	if !validPart(c.GetNode()) {
		return refuse(ref, Invalid, "a node has a name of 1 to %d bytes, none of them zero", longestPart)
	}
	if len(c.GetSegments()) > maxSegments || len(c.GetEnded()) > maxSegments {
		return refuse(ref, Invalid, "a report has at most %d segments", maxSegments)
	}
	for i, s := range c.GetSegments() {
		if why := checkSegment(s); why != "" {
			return refuse(ref, Invalid, "segments[%d]: %s", i, why)
		}
	}
	for i, epoch := range c.GetEnded() {
		if len(epoch) != epochSize {
			return refuse(ref, Invalid, "ended[%d]: an epoch has %d bytes", i, epochSize)
		}
	}
	return nil
}

func usageRef(c *weirv1.ApplyUsage) resource.Ref {
	return resource.Ref{Kind: "Usage", Name: c.GetNode()}
}

func checkSegment(s *weirv1.UsageSegment) (why string) {
	switch {
	case len(s.GetEpoch()) != epochSize:
		return fmt.Sprintf("an epoch has %d bytes", epochSize)
	case s.GetSequence() == 0 || s.GetSequence() == math.MaxUint64:
		return "a sequence is between 0 and the biggest number"
	case s.GetOldest() > s.GetSequence():
		return "the oldest segment comes after this one"
	case len(s.GetCounts()) > maxSegmentCounts:
		return fmt.Sprintf("a segment has at most %d counts", maxSegmentCounts)
	}
	for i, c := range s.GetCounts() {
		for _, part := range [...]string{c.GetTenant(), c.GetApp(), c.GetSubscription(), c.GetApi(), c.GetOperation()} {
			if !validPart(part) || !utf8.ValidString(part) {
				return fmt.Sprintf("counts[%d]: a name has 1 to %d bytes of UTF-8, none of them zero", i, longestPart)
			}
		}
		if c.GetStatusClass() < 1 || c.GetStatusClass() > 5 {
			return fmt.Sprintf("counts[%d]: there is no class of status %d", i, c.GetStatusClass())
		}
		if c.GetCount() == 0 || c.GetCount() > maxCount {
			return fmt.Sprintf("counts[%d]: %d is no count", i, c.GetCount())
		}
	}
	return ""
}

// usageWriter changes the file for one command.
type usageWriter struct {
	rows, reported *bolt.Bucket
	now            time.Time
	hour           int64
}

// checkAhead refuses a report by which more would have to be remembered than may be.
func (u *usageWriter) checkAhead(c *weirv1.ApplyUsage) (*RefusedError, error) {
	ahead := map[string]int{}
	for i, s := range c.GetSegments() {
		key := reportedKey(c.GetNode(), s.GetEpoch())
		r, err := u.read(key)
		if err != nil {
			return nil, err
		}
		r.raise(s.GetOldest())
		if r.has(s.GetSequence()) {
			continue
		}
		if ahead[string(key)]++; len(r.above)+ahead[string(key)] > maxAhead {
			return refuse(usageRef(c), Invalid, "segments[%d]: %d segments are ahead of one that has not come", i, maxAhead), nil
		}
	}
	return nil, nil
}

// add adds a segment, if it was not added before.
func (u *usageWriter) add(node string, s *weirv1.UsageSegment) error {
	key := reportedKey(node, s.GetEpoch())
	r, err := u.read(key)
	if err != nil {
		return err
	}
	r.raise(s.GetOldest())
	fresh := r.take(s.GetSequence())
	r.time, r.ended = u.now.Unix(), r.ended && !fresh
	if err := u.reported.Put(key, r.append(nil)); err != nil {
		return err
	}
	if !fresh {
		return nil
	}
	for _, c := range s.GetCounts() {
		key := rowKey(u.clamp(c.GetHour()), c)
		n := c.GetCount()
		if value := u.rows.Get(key); len(value) == 8 {
			n += binary.BigEndian.Uint64(value)
		}
		if err := u.rows.Put(key, binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return err
		}
	}
	return nil
}

// clamp keeps hours of clocks that are wrong within those that are kept: what was counted
// counts, if only now.
func (u *usageWriter) clamp(hour int64) int64 {
	if hour > u.hour+1 || hour <= u.hour-hours(UsageRetention) {
		return u.hour
	}
	return hour
}

// end notes that nothing of an epoch will come any more.
func (u *usageWriter) end(key []byte) error {
	if u.reported.Get(key) == nil {
		return nil
	}
	r, err := u.read(key)
	if err != nil {
		return err
	}
	r.ended, r.time = true, u.now.Unix()
	return u.reported.Put(key, r.append(nil))
}

// dropRows drops some of the rows that are too old.
func (u *usageWriter) dropRows() error {
	end := binary.BigEndian.AppendUint64(nil, uint64(max(0, u.hour-hours(UsageRetention)+1)))
	c := u.rows.Cursor()
	key, _ := c.First()
	for range droppedAtOnce {
		if key == nil || bytes.Compare(key[:8], end) >= 0 {
			return nil
		}
		if err := c.Delete(); err != nil {
			return err
		}
		key, _ = c.First()
	}
	return nil
}

// sweep forgets epochs of which nothing can come, some of them with each command, one
// after the other.
func (u *usageWriter) sweep(meta *bolt.Bucket) error {
	at := slices.Clone(meta.Get(keySwept))
	c := u.reported.Cursor()
	key, value := c.Seek(at)
	var gone [][]byte
	for range sweptAtOnce {
		if key == nil {
			at = nil // from the start again
			break
		}
		r, err := readReported(value)
		if err != nil {
			return fmt.Errorf("read epoch %q: %w", key, err)
		}
		age := u.now.Sub(time.Unix(r.time, 0))
		if r.ended && age > endedEpoch || age > silentEpoch {
			gone = append(gone, slices.Clone(key))
		}
		at = append(slices.Clone(key), 0)
		key, value = c.Next()
	}
	for _, key := range gone {
		if err := u.reported.Delete(key); err != nil {
			return err
		}
	}
	return meta.Put(keySwept, at)
}

func (u *usageWriter) read(key []byte) (reported, error) {
	r, err := readReported(u.reported.Get(key))
	if err != nil {
		return r, fmt.Errorf("read epoch %q: %w", key, err)
	}
	return r, nil
}

// reported is what is remembered of an epoch: all sequences below a mark have come or
// will never come, and some above it have come.
type reported struct {
	below uint64
	above []uint64 // sorted
	time  int64    // of the last command that had to do with it, Unix
	ended bool
}

func (r *reported) has(sequence uint64) bool {
	if sequence < r.below {
		return true
	}
	_, found := slices.BinarySearch(r.above, sequence)
	return found
}

// take notes a sequence, and reports whether it is new.
func (r *reported) take(sequence uint64) bool {
	if r.has(sequence) {
		return false
	}
	at, _ := slices.BinarySearch(r.above, sequence)
	r.above = slices.Insert(r.above, at, sequence)
	r.raise(r.below)
	return true
}

// raise moves the mark to a sequence before which nothing will come, and on over those
// that have come.
func (r *reported) raise(oldest uint64) {
	r.below = max(r.below, oldest, 1)
	n := 0
	for n < len(r.above) && r.above[n] <= r.below {
		if r.above[n] == r.below {
			r.below++
		}
		n++
	}
	r.above = slices.Delete(r.above, 0, n)
}

func (r *reported) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, r.below)
	b = binary.BigEndian.AppendUint64(b, uint64(r.time))
	if r.ended {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	for _, sequence := range r.above {
		b = binary.BigEndian.AppendUint64(b, sequence)
	}
	return b
}

func readReported(b []byte) (r reported, err error) {
	const head = 17
	if len(b) == 0 {
		return r, nil
	}
	if len(b) < head || (len(b)-head)%8 != 0 {
		return r, fmt.Errorf("%d bytes are none", len(b))
	}
	r.below, r.time, r.ended = binary.BigEndian.Uint64(b), int64(binary.BigEndian.Uint64(b[8:])), b[16] != 0
	for b = b[head:]; len(b) > 0; b = b[8:] {
		r.above = append(r.above, binary.BigEndian.Uint64(b))
	}
	return r, nil
}

func reportedKey(node string, epoch []byte) []byte { return append([]byte(node+separator), epoch...) }

// rowKey has the hour first: what is old is at the beginning, and what changes now is in
// one place.
func rowKey(hour int64, c *weirv1.UsageCount) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, 256), uint64(max(0, hour)))
	key = append(key, strings.Join([]string{c.GetTenant(), c.GetApp(), c.GetSubscription(), c.GetApi(), c.GetOperation()}, separator)...)
	return append(key, 0, byte(c.GetStatusClass()))
}

func hourOf(t time.Time) int64    { return t.Unix() / 3600 }
func hours(d time.Duration) int64 { return int64(d / time.Hour) }
