import torch
from einops import rearrange
from video_gen.data.clips import to_video
from video_gen.evaluation.reconstruction import psnr
tr=to_video(torch.load('train.pt'.join(['/work/scratch/studio21/','']))); va=to_video(torch.load('/work/scratch/studio21/validation.pt'))
for s,c in ((4,16),(8,16),(8,32),(8,48)):
    P=lambda v: rearrange(v[:,:,1:],'b c (f t) (h p) (w q) -> (b f h w) (c t p q)',t=4,p=s,q=s)
    X=P(tr[:300]); m=X.mean(0); C=(X-m).T@(X-m); w,V=torch.linalg.eigh(C); V=V[:,-c:]
    Y=P(va[:48]); R=(Y-m)@V@V.T+m
    n=32//s
    R=rearrange(R,'(b f h w) (c t p q) -> b c (f t) (h p) (w q)',b=48,f=4,h=n,w=n,c=3,t=4,p=s,q=s)
    print(s,c,float(psnr(R,va[:48,:,1:]).mean()))
