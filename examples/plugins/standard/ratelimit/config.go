package ratelimit

import (
	"errors"
	"strings"
)

type config struct {
	// Name tells this limit from others in the RateLimit headers.
	Name   string `json:"name"`
	Limit  uint32 `json:"limit"`
	Window int    `json:"window"`
	Header string `json:"header"`
	// Legacy adds the X-RateLimit fields that older clients read.
	Legacy bool `json:"legacy"`
	// Slots is how many callers are kept count of at the same time.
	Slots uint32 `json:"slots"`
}

func (c *config) Default() {
	c.Name, c.Window, c.Slots = "default", 60, 8192
}

func (c *config) Validate() error {
	const year = 366 * 24 * 60 * 60
	switch {
	case c.Limit == 0:
		return errors.New("limit: must be more than 0")
	case c.Window < 1 || c.Window > year:
		return errors.New("window: must be between a second and a year")
	case c.Slots == 0:
		return errors.New("slots: must be more than 0")
	case strings.ContainsFunc(c.Name, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }):
		return errors.New("name: must be printable ASCII without quotes and backslashes")
	}
	return nil
}
