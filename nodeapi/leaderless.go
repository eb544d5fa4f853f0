package nodeapi

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
)

// errNoLeader is what a server answers that knows no leader: it hears nothing new, and
// nobody hears from it of its proxies.
var errNoLeader = because("NO_LEADER", "this server knows no leader; try another")

// because is an error that a proxy can tell from others.
func because(reason, text string) error {
	err := connect.NewError(connect.CodeUnavailable, text)
	detail, bad := connectproto.NewErrorDetail(&errdetails.ErrorInfo{Reason: reason, Domain: errorDomain})
	if bad != nil {
		return err
	}
	return err.WithDetail(detail)
}

const errorDomain = "weir"

// isLeaderless tells whether a server has said [errNoLeader].
func isLeaderless(err error) bool {
	var verdict *connect.Error
	if !errors.As(err, &verdict) {
		return false
	}
	for _, detail := range verdict.Details() {
		m, err := connectproto.UnmarshalErrorDetail(detail)
		if info, ok := m.(*errdetails.ErrorInfo); ok && err == nil && info.GetDomain() == errorDomain && info.GetReason() == "NO_LEADER" {
			return true
		}
	}
	return false
}

// lookAround is after how long a proxy that is with a server that knew no leader looks
// for another that does. There may be many such proxies, so it differs from time to time.
const lookAround = 8 * time.Second

// errLookAround ends a stream that a proxy has had because no server knew a leader.
var errLookAround = errors.New("maybe a server knows a leader by now")

// search is a proxy's for a server that knows a leader. It goes from one server to the
// next; when it is back at one that has sent it on, there is none to be found, and any
// server will do for a while: without a majority nobody is turned away for good.
type search struct {
	asked   map[string]bool // those that know no leader
	settles bool
	told    bool // the log has been
}

// wants tells whether the next server is to know a leader.
func (s *search) wants() bool { return !s.settles }

// note takes in how a stream has ended. good: something has come by it.
func (s *search) note(log *slog.Logger, server string, good bool, err error) {
	if good {
		*s = search{told: s.told && s.settles}
	}
	switch {
	case !isLeaderless(err):
	case !s.asked[server]:
		if s.asked == nil {
			s.asked = map[string]bool{}
		}
		s.asked[server] = true
		log.Log(context.Background(), s.level(slog.LevelInfo), "the server knows no leader; looking for one that does", "server", server)
	default:
		log.Log(context.Background(), s.level(slog.LevelWarn), "no server knows a leader; any will do for now")
		*s = search{settles: true, told: true}
	}
}

// level is that of what is said again and again.
func (s *search) level(first slog.Level) slog.Level {
	if s.told {
		return slog.LevelDebug
	}
	return first
}

// patience is when to look around, for who has settled; nil: never.
func (s *search) patience(d time.Duration) <-chan time.Time {
	if !s.settles {
		return nil
	}
	return time.After(d + rand.N(d/2+1))
}
