// Package model compares an edge, while its configuration changes, with a model
// of it that is simple enough to be seen to be right: look at every match of
// every route, keep the best, do what its filters say, one after the other.
//
//	changes ─▶ edge  ─▶ services that say what they were asked
//	        └▶ model ─▶ what may be answered
//
// A request is served under one configuration, which is none older than the
// newest one in force when it was sent and none newer than the newest one given
// when it was answered. So its answer must be what the model says for one of
// those, whole: no answer may be a mixture of two.
//
// What is mirrored is compared, too: the copies that belong to an answer come, once,
// and no others.
//
// Routes, filters, weights, subsets and requests are drawn by a seed, which a failure
// names: go test ./test/model -seed N.
package model
