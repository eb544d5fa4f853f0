package ratelimit

import (
	"errors"
	"strings"
)

type config struct {
	Name   string `json:"name" about:"tells this limit from others in the RateLimit fields"`
	Limit  uint32 `json:"limit" about:"requests that a caller may make in a window"`
	Window int    `json:"window" about:"in seconds"`
	Header string `json:"header" about:"says who calls; empty, or without it: the address"`
	Legacy bool   `json:"legacy" about:"adds X-RateLimit fields"`
	Slots  uint32 `json:"slots" about:"how many callers are kept count of at the same time"`
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
