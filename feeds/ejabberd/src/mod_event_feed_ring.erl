%%% The events that have not been acknowledged, numbered without holes and
%%% bounded in number and bytes. They live in an ETS table, out of the reach of
%%% the garbage collector, which would copy a hundred thousand of them again
%%% and again. The table belongs to the process that made it.
-module(mod_event_feed_ring).

-export([new/2, load/5, limits/3, append/2, lose/2, trim/2, at/2,
	 first/1, next/1, holes/1, to_list/1]).

-include("xmpp.hrl").
-include("mod_event_feed.hrl").

-record(ring, {tab :: ets:tid(),
	       first = 1 :: pos_integer(),   % the oldest number kept
	       next = 1 :: pos_integer(),    % the number of the next event
	       bytes = 0 :: non_neg_integer(),
	       %% Numbers between first and next whose events were lost before
	       %% they came here, oldest first.
	       holes = [] :: [{pos_integer(), pos_integer()}],
	       max_events :: pos_integer(),
	       max_bytes :: pos_integer()}).

-opaque ring() :: #ring{}.
-export_type([ring/0]).

-spec new(pos_integer(), pos_integer()) -> ring().
new(MaxEvents, MaxBytes) ->
    Tab = ets:new(?MODULE, [set, private, {keypos, #kept.seq}]),
    #ring{tab = Tab, max_events = MaxEvents, max_bytes = MaxBytes}.

%% load is the reverse of to_list, next and holes.
-spec load([#kept{}], pos_integer(), [{pos_integer(), pos_integer()}],
	   pos_integer(), pos_integer()) -> ring().
load(Events, Next, Holes, MaxEvents, MaxBytes) ->
    Ring = new(MaxEvents, MaxBytes),
    true = ets:insert(Ring#ring.tab, Events),
    First = lists:foldl(fun(#kept{seq = Seq}, Min) -> min(Seq, Min) end, Next, Events),
    Bytes = lists:foldl(fun(#kept{size = Size}, Sum) -> Size + Sum end, 0, Events),
    Later = [Hole || {From, _} = Hole <- Holes, From > First],
    shrink(Ring#ring{first = First, next = Next, bytes = Bytes, holes = Later}).

-spec limits(pos_integer(), pos_integer(), ring()) -> ring().
limits(MaxEvents, MaxBytes, Ring) ->
    shrink(Ring#ring{max_events = MaxEvents, max_bytes = MaxBytes}).

%% append gives the event its number. The oldest ones make room for it.
-spec append(#kept{}, ring()) -> ring().
append(Event, #ring{tab = Tab, next = Next, bytes = Bytes} = Ring) ->
    Kept = Event#kept{seq = Next},
    true = ets:insert(Tab, Kept),
    shrink(Ring#ring{next = Next + 1, bytes = Bytes + Kept#kept.size}).

%% lose gives numbers to N events that are lost already.
-spec lose(non_neg_integer(), ring()) -> ring().
lose(0, Ring) ->
    Ring;
lose(N, #ring{first = Next, next = Next} = Ring) ->
    Ring#ring{first = Next + N, next = Next + N};
lose(N, #ring{next = Next, holes = Holes} = Ring) ->
    To = Next + N - 1,
    Longer = case lists:reverse(Holes) of
		 [{From, Last} | Older] when Last == Next - 1 ->
		     lists:reverse(Older, [{From, To}]);
		 _ ->
		     Holes ++ [{Next, To}]
	     end,
    Ring#ring{next = To + 1, holes = Longer}.

%% trim forgets everything up to Seq.
-spec trim(non_neg_integer(), ring()) -> ring().
trim(Seq, #ring{first = First, next = Next} = Ring) when First =< Seq, First < Next ->
    trim(Seq, drop_first(Ring));
trim(_Seq, Ring) ->
    Ring.

%% at says what stands at a number: an event, a loss that begins there, or
%% nothing yet.
-spec at(pos_integer(), ring()) -> #kept{} | {lost, pos_integer()} | none.
at(Seq, #ring{next = Next}) when Seq >= Next ->
    none;
at(Seq, #ring{first = First}) when Seq < First ->
    {lost, First - 1};
at(Seq, #ring{tab = Tab, holes = Holes}) ->
    case ets:lookup(Tab, Seq) of
	[Kept] -> Kept;
	[] ->
	    [To] = [To || {From, To} <- Holes, From =< Seq, Seq =< To],
	    {lost, To}
    end.

-spec first(ring()) -> pos_integer().
first(#ring{first = First}) -> First.

-spec next(ring()) -> pos_integer().
next(#ring{next = Next}) -> Next.

-spec holes(ring()) -> [{pos_integer(), pos_integer()}].
holes(#ring{holes = Holes}) -> Holes.

-spec to_list(ring()) -> [#kept{}].
to_list(#ring{tab = Tab}) -> ets:tab2list(Tab).

shrink(#ring{tab = Tab, bytes = Bytes, max_events = MaxEvents, max_bytes = MaxBytes} = Ring) ->
    case Bytes > MaxBytes orelse ets:info(Tab, size) > MaxEvents of
	true -> shrink(drop_first(Ring));
	false -> Ring
    end.

%% What stands first is always an event, never a hole.
drop_first(#ring{tab = Tab, first = First, bytes = Bytes, holes = Holes} = Ring) ->
    [#kept{size = Size}] = ets:take(Tab, First),
    case Holes of
	[{From, To} | Later] when From == First + 1 ->
	    Ring#ring{first = To + 1, bytes = Bytes - Size, holes = Later};
	_ ->
	    Ring#ring{first = First + 1, bytes = Bytes - Size}
    end.
