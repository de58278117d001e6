%%% Rooms: who enters and leaves, what occupants of other servers say, and which
%%% members miss what is said.
%%%
%%% The hooks run in the room's process, one after the other. What they remember
%%% between them stands in its dictionary: join_room and leave_room do not know
%%% the nick.
-module(mod_event_feed_rooms).

-export([start/1, stop/1, hosts/1]).
-export([presence/3, message/3, joined/4, left/4]).

-include("logger.hrl").
-include("xmpp.hrl").
-include("mod_muc_room.hrl").
-include("mod_event_feed.hrl").

-define(LAST, mod_event_feed_last).
-define(NICK(LJID), {mod_event_feed_nick, LJID}).

-spec start(binary()) -> ok.
start(Host) ->
    _ = [ejabberd_hooks:add(Hook, Host, ?MODULE, Function, Seq) || {Hook, Function, Seq} <- hooks()],
    ok.

-spec stop(binary()) -> ok.
stop(Host) ->
    _ = [ejabberd_hooks:delete(Hook, Host, ?MODULE, Function, Seq) || {Hook, Function, Seq} <- hooks()],
    ok.

hooks() ->
    [{muc_filter_presence, presence, 90},
     {muc_filter_message, message, 90},
     {join_room, joined, 50},
     {leave_room, left, 50}].

%% hosts lists the hosts of a virtual host's rooms.
-spec hosts(binary()) -> [binary()].
hosts(Host) ->
    case gen_mod:is_loaded(Host, mod_muc) of
	true -> gen_mod:get_module_opt_hosts(Host, mod_muc);
	false -> []
    end.

-spec presence(presence() | drop, #state{}, binary()) -> presence() | drop.
presence(#presence{from = From} = Presence, State, Nick) ->
    LJID = jid:tolower(From),
    put(?LAST, {LJID, Nick}),
    case maps:find(LJID, State#state.users) of
	{ok, #user{nick = Current}} -> put(?NICK(LJID), Current);
	error -> ok
    end,
    Presence;
presence(Acc, _State, _Nick) ->
    Acc.

%% The hook is also run for private messages and for what the room itself says, such as
%% the subject for one who enters (ejabberd 23.10 and later).
-spec message(message() | drop, #state{}, binary()) -> message() | drop.
message(#message{type = groupchat, from = From, to = #jid{lresource = <<>>}} = Message,
	#state{jid = Room} = State, Nick) ->
    case mod_event_feed:is_served(From#jid.lserver) of
	true -> ok;
	false ->
	    mod_event_feed:tell(<<"room-message">>, Room#jid.lserver, jid:remove_resource(From),
				named(Room, Nick), Message)
    end,
    missed(Message, State, Nick),
    Message;
message(Acc, _State, _Nick) ->
    Acc.

%% missed reports the message as the room is about to send it.
missed(Message, #state{jid = Room} = State, Nick) ->
    From = jid:replace_resource(Room, Nick),
    try mod_event_feed_missed:by(Message, From, State) of
	[] ->
	    ok;
	Texts ->
	    Said = xmpp:remove_subtag(Message, #nick{}), % of the sender, not of the occupant
	    Sent = Said#message{from = From, to = Room},
	    lists:foreach(fun(Members) ->
				  mod_event_feed:tell(<<"room-missed">>, Room#jid.lserver, undefined,
						      named(Room, Nick) ++ [{<<"members">>, Members}], Sent)
			  end, Texts)
    catch
	Class:_:Stack -> % without what it says
	    ?ERROR_MSG("Cannot say who has missed a message: ~p at ~p",
		       [Class, [{M, F, L} || {M, F, _, L} <- Stack]])
    end.

-spec joined(binary(), binary(), binary(), jid()) -> ok.
joined(_ServerHost, Room, Host, JID) ->
    LJID = jid:tolower(JID),
    Nick = case get(?LAST) of
	       {LJID, Wanted} -> Wanted;
	       _ -> undefined
	   end,
    put(?NICK(LJID), Nick),
    tell(<<"room-join">>, Room, Host, JID, Nick).

-spec left(binary(), binary(), binary(), jid()) -> ok.
left(_ServerHost, Room, Host, JID) ->
    tell(<<"room-part">>, Room, Host, JID, erase(?NICK(jid:tolower(JID)))).

tell(Kind, Room, Host, JID, Nick) ->
    mod_event_feed:tell(Kind, Host, JID, named(jid:make(Room, Host), Nick), none).

named(Room, Nick) ->
    [{<<"room">>, jid:encode(jid:remove_resource(Room))} | [{<<"nick">>, Nick} || is_binary(Nick)]].
